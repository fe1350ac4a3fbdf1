package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
)

// tokenRow is what the gateway says of a token.
type tokenRow struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Verbs      []string  `json:"verbs"`
	Namespaces []string  `json:"namespaces"`
	Functions  []string  `json:"functions"`
	Rate       float64   `json:"rate"`
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires"`
	Token      string    `json:"token"`
}

func newToken(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list, rotate and revoke the gateway's tokens",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreate(env), newTokenList(env), newTokenRotate(env), newTokenRevoke(env))
	return cmd
}

type tokenOptions struct {
	addr, namespace              string
	verbs, namespaces, functions []string
	rate                         float64
	expires                      time.Duration
}

func newTokenCreate(env environment) *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token and print it, this once",
		Example: `  freshet token create ci --verbs deploy,read --namespaces prod
  freshet token create website --verbs call --functions gosearch.search --rate 50`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			request := map[string]any{
				"name": given[0], "verbs": o.verbs, "namespaces": o.namespaces, "functions": o.functions, "rate": o.rate,
			}
			if o.expires > 0 {
				request["expires"] = o.expires.String()
			}
			var made tokenRow
			if err := api.json(cmd.Context(), http.MethodPost, "/v1/tokens", nil, request, &made); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), made.Token)
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().StringSliceVar(&o.verbs, "verbs", []string{"call", "read"}, "what it allows: call, read, deploy, secret, admin")
	cmd.Flags().StringSliceVar(&o.namespaces, "namespaces", nil, "where (default: everywhere)")
	cmd.Flags().StringSliceVar(&o.functions, "functions", nil, "for which apps or functions (default: all)")
	cmd.Flags().Float64Var(&o.rate, "rate", 0, "requests a second that each gateway takes (default: any number)")
	cmd.Flags().DurationVar(&o.expires, "expires", 0, "how long it lasts (default: until it is revoked)")
	return cmd
}

func newTokenList(env environment) *cobra.Command {
	var addr, namespace string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens, without their secrets",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			var rows []tokenRow
			if err := api.get(cmd.Context(), "/v1/tokens", nil, &rows); err != nil {
				return err
			}
			t := newTable(cmd.OutOrStdout(), "id", "name", "verbs", "namespaces", "functions", "expires")
			for _, row := range rows {
				expires := "never"
				if !row.Expires.IsZero() {
					expires = row.Expires.Local().Format(time.DateTime)
				}
				t.AppendRow(table.Row{
					row.ID, row.Name, strings.Join(row.Verbs, ","), or(strings.Join(row.Namespaces, ","), "all"),
					or(strings.Join(row.Functions, ","), "all"), expires,
				})
			}
			t.Render()
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	return cmd
}

func newTokenRotate(env environment) *cobra.Command {
	var addr, namespace string
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Give a token another secret and print it, this once; the old one ends",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			var made tokenRow
			if err := api.json(cmd.Context(), http.MethodPost, "/v1/tokens/"+url.PathEscape(given[0])+"/rotate", nil, nil, &made); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), made.Token)
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	return cmd
}

func newTokenRevoke(env environment) *cobra.Command {
	return newForEach(env, "revoke", "End tokens", "is revoked", func(ctx context.Context, api apiClient, id string) error {
		return api.json(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), nil, nil, nil)
	})
}
