package main

import (
	"net/url"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/client"
)

// classOptions say which method of a class is called, and which of its workers.
type classOptions struct {
	method     string
	parameters map[string]string
}

// addFlags adds the flags of every command that makes calls.
func (o *classOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.method, "method", "", "method of a class")
	cmd.Flags().StringToStringVarP(&o.parameters, "param", "p", nil, "value of a class's parameter, NAME=VALUE")
}

// request is one to call the function.
func (o classOptions) request(function string) client.Request {
	request := client.Request{Function: function, Method: o.method}
	for name, value := range o.parameters {
		request = request.With(map[string]any{name: value}) // the gateway reads it as the parameter's type
	}
	return request
}

// query says the same to the gateway's API.
func (o classOptions) query(namespace string) url.Values {
	query := url.Values{"namespace": {namespace}}
	if o.method != "" {
		query.Set("method", o.method)
	}
	for name, value := range o.parameters {
		query.Set("param."+name, value)
	}
	return query
}
