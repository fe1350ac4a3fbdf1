package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
)

// pastDeploy is a deploy as the gateway lists it.
type pastDeploy struct {
	Number  int       `json:"number"`
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	By      string    `json:"by,omitempty"`
	Message string    `json:"message,omitempty"`
	Commit  string    `json:"commit,omitempty"`
	Of      int       `json:"of,omitempty"`
}

func newHistory(env environment) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history APP",
		Short: "List an app's deploys, the newest first",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			var list []pastDeploy
			if err := api.get(cmd.Context(), "/v1/apps/"+url.PathEscape(given[0])+"/deploys", url.Values{"namespace": {namespace}}, &list); err != nil {
				return fmt.Errorf("list deploys of %s: %w", given[0], err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			printHistory(cmd.OutOrStdout(), given[0], list)
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printHistory(out io.Writer, app string, list []pastDeploy) {
	if len(list) == 0 {
		fmt.Fprintf(out, "No deploys of %s.\n", app)
		return
	}
	t := newTable(out, "deploy", "version", "when", "by", "commit", "message")
	for _, d := range list {
		message := d.Message
		if d.Of > 0 && message == "" {
			message = fmt.Sprintf("back to deploy %d", d.Of)
		}
		t.AppendRow(table.Row{d.Number, or(d.Version, "-"), d.Time.Local().Format(time.DateTime), or(d.By, "-"), or(d.Commit, "-"), message})
	}
	t.Render()
}

func newRollback(env environment) *cobra.Command {
	var addr, namespace, message, strategy string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rollback APP [DEPLOY]",
		Short: "Deploy again what an earlier deploy did: the one before the last, or the one of a number",
		Long:  "Deploys again exactly what an earlier deploy did. `freshet history APP` has the numbers. The rollback is a deploy with a number of its own.",
		Args:  args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			query := url.Values{"namespace": {namespace}, "message": {message}, "strategy": {strategy}}
			if len(given) == 2 {
				if _, err := strconv.Atoi(given[1]); err != nil {
					return usagef(cmd, "deploy %q: give a number, as `freshet history %s` lists them", given[1], given[0])
				}
				query.Set("number", given[1])
			}
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			began := time.Now()
			var answer deployed
			if err := api.json(cmd.Context(), http.MethodPost, "/v1/apps/"+url.PathEscape(given[0])+"/rollback", query, nil, &answer); err != nil {
				return fmt.Errorf("roll back %s: %w", given[0], err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), answer)
			}
			answer.print(cmd.OutOrStdout(), time.Since(began))
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	addStrategyFlag(cmd, &strategy)
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for the history")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printPlan shows what a deploy would change, in colour on a terminal.
func printPlan(out io.Writer, d deployed, paint func(text.Color, string) string) {
	for _, change := range d.Changes {
		sign, color := "~", text.FgYellow
		switch change.Action {
		case "create":
			sign, color = "+", text.FgGreen
		case "delete":
			sign, color = "-", text.FgRed
		case "no change":
			sign, color = " ", text.Faint
		}
		fmt.Fprintln(out, paint(color, fmt.Sprintf("%s %s.%s: %s", sign, d.App, change.Function, change.Action)))
		for _, field := range change.Fields {
			fmt.Fprintf(out, "    %s: %s => %s\n", field.Name, or(field.Old, "(none)"), or(field.New, "(none)"))
		}
	}
}
