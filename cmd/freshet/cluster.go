package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/contexts"
	"github.com/freshet-dev/freshet/internal/local"
	"github.com/freshet-dev/freshet/sdk/client"
)

// cluster is the one that a command talks to, and how.
type cluster struct {
	address, token, namespace string
	// ca is a file of certificates that the gateway's is signed by; empty for those that the machine trusts.
	ca string
}

// cluster is the one whose gateway is given, else that of --context, else those of FRESHET_ADDR and FRESHET_CONTEXT, else the context in
// use, else that of `freshet up` on this machine. FRESHET_TOKEN stands above the token of a context, but for --context, which is
// as much as to say whose token to show.
func (e environment) cluster(addr string) (cluster, error) {
	switch {
	case addr != "":
		return e.at(addr), nil
	case *e.chosen != "":
		return e.named(*e.chosen)
	case e.addr != "":
		return e.at(e.addr), nil
	}
	name := e.context
	if name == "" {
		file, err := e.loadContexts()
		if err != nil {
			return cluster{}, err
		}
		name = or(file.Current, contexts.Local)
	}
	c, err := e.named(name)
	c.token = or(e.token, c.token)
	return c, err
}

// at is the cluster at an address, whose token is known where it is that of `freshet up`.
func (e environment) at(address string) cluster {
	c := cluster{address: address, token: e.token}
	if state, err := local.LoadState(e.state); err == nil && c.token == "" && state.Gateway() == strings.TrimRight(address, "/") {
		c.token = state.Token
	}
	return c
}

// named is the cluster of a context.
func (e environment) named(name string) (cluster, error) {
	if name == contexts.Local {
		state, err := local.LoadState(e.state)
		if err != nil {
			return cluster{}, fmt.Errorf("find a gateway: none runs here from %s: start one with `freshet up`, or name one with --addr or FRESHET_ADDR, or with `freshet context set`", e.state)
		}
		return cluster{address: state.Gateway(), token: state.Token}, nil
	}
	file, err := e.loadContexts()
	if err != nil {
		return cluster{}, err
	}
	found, err := file.Find(name)
	return cluster{address: found.Address, token: found.Token, namespace: found.Namespace, ca: found.CA}, err
}

func (e environment) loadContexts() (contexts.File, error) {
	if e.contexts == "" {
		return contexts.File{}, nil
	}
	return contexts.Load(e.contexts)
}

// client calls functions through the gateway to talk to.
func (e environment) client(addr string, options ...client.Option) (*client.Client, error) {
	c, err := e.cluster(addr)
	if err != nil {
		return nil, err
	}
	options = append(options, client.Token(c.token))
	if c.ca != "" {
		transport, err := c.transport()
		if err != nil {
			return nil, err
		}
		options = append(options, client.HTTPClient(&http.Client{Transport: transport}))
	}
	return client.New(c.address, options...), nil
}

// api speaks to the gateway to talk to.
func (e environment) api(addr string) (apiClient, error) {
	c, err := e.cluster(addr)
	if err != nil {
		return apiClient{}, err
	}
	api := newAPIClient(c.address, c.token)
	if c.ca != "" {
		if api.http.Transport, err = c.transport(); err != nil {
			return apiClient{}, err
		}
	}
	return api, nil
}

// transport trusts the cluster's own certificates beside no others.
func (c cluster) transport() (*http.Transport, error) {
	data, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("read the cluster's certificates: %s has none in PEM", c.ca)
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: maxIdle,
	}, nil
}

// maxIdle is how many connections stay open to a gateway, for maps.
const maxIdle = 1024

// chooseNamespace gives a command that names no namespace the one of the environment, else of the cluster's context.
func (e environment) chooseNamespace(cmd *cobra.Command) error {
	flag, addr := cmd.Flag("namespace"), cmd.Flag("addr")
	if flag == nil || flag.Changed || addr == nil {
		return nil
	}
	namespace := e.namespace
	if namespace == "" || *e.chosen != "" {
		c, err := e.cluster(addr.Value.String())
		if err != nil {
			return nil //nolint:nilerr // the command says so itself, if it needs one
		}
		namespace = or(c.namespace, namespace)
	}
	if namespace == "" {
		return nil
	}
	return flag.Value.Set(namespace)
}
