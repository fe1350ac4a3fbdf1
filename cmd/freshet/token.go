package main

import (
	"fmt"
	"io"
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
	Namespaces []string  `json:"namespaces,omitempty"`
	Functions  []string  `json:"functions,omitempty"`
	Rate       float64   `json:"rate,omitempty"`
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires,omitzero"`
	LastUsed   time.Time `json:"last_used,omitzero"`
	Retired    []struct {
		Until time.Time `json:"until"`
	} `json:"retired,omitempty"`
	// Token is in the answers that give a secret alone.
	Token string `json:"token,omitempty"`
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

// tokenOptions are those of every command about tokens.
type tokenOptions struct {
	addr, namespace string
	asJSON          bool
}

func (o *tokenOptions) addFlags(cmd *cobra.Command) {
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
}

// print prints a token that has a new secret.
func (o *tokenOptions) print(out io.Writer, made tokenRow) error {
	if o.asJSON {
		return printJSON(out, made)
	}
	fmt.Fprintln(out, made.Token)
	return nil
}

func newTokenCreate(env environment) *cobra.Command {
	var (
		o                            tokenOptions
		verbs, namespaces, functions []string
		rate                         float64
		ttl                          time.Duration
	)
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token and print it, this once",
		Example: `  freshet token create ci --verbs deploy,read --namespaces prod --ttl 720h
  freshet token create website --verbs call --functions gosearch.search --rate 50`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			request := map[string]any{"name": given[0], "verbs": verbs, "namespaces": namespaces, "functions": functions, "rate": rate}
			if cmd.Flags().Changed("ttl") {
				request["ttl"] = ttl.String()
			}
			var made tokenRow
			if err := api.json(cmd.Context(), http.MethodPost, "/v1/tokens", nil, request, &made); err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), made)
		},
	}
	o.addFlags(cmd)
	cmd.Flags().StringSliceVar(&verbs, "verbs", []string{"call", "read"}, "what it allows: call, read, deploy, exec, secret, volume, admin")
	cmd.Flags().StringSliceVar(&namespaces, "namespaces", nil, "where (default: everywhere)")
	cmd.Flags().StringSliceVar(&functions, "functions", nil, "for which apps or functions (default: all)")
	cmd.Flags().Float64Var(&rate, "rate", 0, "requests a second that each gateway takes (default: any number)")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long it lasts, such as 24h (default: until it is revoked)")
	return cmd
}

func newTokenList(env environment) *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the tokens, without their secrets",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			var rows []tokenRow
			if err := api.get(cmd.Context(), "/v1/tokens", nil, &rows); err != nil {
				return err
			}
			if o.asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			t := newTable(cmd.OutOrStdout(), "id", "name", "verbs", "namespaces", "functions", "expires", "last used")
			for _, row := range rows {
				t.AppendRow(table.Row{
					row.ID, row.Name, strings.Join(row.Verbs, ","), or(strings.Join(row.Namespaces, ","), "all"),
					or(strings.Join(row.Functions, ","), "all"), dateOrNever(row.Expires), dateOrNever(row.LastUsed),
				})
			}
			t.Render()
			return nil
		},
	}
	o.addFlags(cmd)
	return cmd
}

func dateOrNever(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.Local().Format(time.DateTime)
}

func newTokenRotate(env environment) *cobra.Command {
	var o tokenOptions
	var grace time.Duration
	cmd := &cobra.Command{
		Use:     "rotate ID",
		Short:   "Give a token another secret and print it, this once; the old one ends at once, or after a grace",
		Example: `  freshet token rotate mfrggzdfmztw --grace 1h`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			query := url.Values{}
			if cmd.Flags().Changed("grace") {
				query.Set("grace", grace.String())
			}
			var made tokenRow
			if err := api.json(cmd.Context(), http.MethodPost, "/v1/tokens/"+url.PathEscape(given[0])+"/rotate", query, nil, &made); err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), made)
		},
	}
	o.addFlags(cmd)
	cmd.Flags().DurationVar(&grace, "grace", 0, "how long the old secret goes on working, up to 168h (default: not at all)")
	return cmd
}

func newTokenRevoke(env environment) *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "revoke ID...",
		Short: "End tokens",
		Args:  args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			for _, id := range given {
				if err := api.json(cmd.Context(), http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), nil, nil, nil); err != nil {
					return err
				}
				if !o.asJSON {
					fmt.Fprintf(cmd.OutOrStdout(), "%s is revoked.\n", id)
				}
			}
			if o.asJSON {
				return printJSON(cmd.OutOrStdout(), map[string][]string{"revoked": given})
			}
			return nil
		},
	}
	o.addFlags(cmd)
	return cmd
}
