package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/queue"
)

// callRow is what the gateway says of a call, a batch or a dead call.
type callRow struct {
	Call     string                `json:"call,omitempty"`
	Batch    string                `json:"batch,omitempty"`
	Function string                `json:"function"`
	Status   string                `json:"status,omitempty"`
	Inputs   int64                 `json:"inputs,omitempty"`
	Finished int64                 `json:"finished,omitempty"`
	Spawned  time.Time             `json:"spawned,omitzero"`
	Died     time.Time             `json:"died,omitzero"`
	Kind     string                `json:"kind,omitempty"`
	Message  string                `json:"message,omitempty"`
	Attempts int                   `json:"attempts,omitempty"`
	Failed   []queue.FailedAttempt `json:"failed_attempts,omitempty"`
}

type callPage struct {
	Items []callRow `json:"items"`
	Next  string    `json:"next"`
}

type callsOptions struct {
	addr, namespace, status, since string
	limit                          int
	dead, asJSON                   bool
}

func newCalls(env environment) *cobra.Command {
	var o callsOptions
	cmd := &cobra.Command{
		Use:   "calls [APP[.FUNCTION]]",
		Short: "List spawned calls and batches, or with --dead those that could not be done",
		Example: `  freshet calls gosearch.search --status failed --since 1h
  freshet calls --dead
  freshet calls show ID
  freshet calls replay ID`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			rows, err := listCalls(cmd, api, given, o)
			if err != nil {
				return err
			}
			if o.asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			printCalls(cmd, rows, o.dead)
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().StringVar(&o.status, "status", "", "queued, running, done, failed or cancelled only")
	cmd.Flags().StringVar(&o.since, "since", "24h", "how far back to look")
	cmd.Flags().IntVar(&o.limit, "limit", 100, "the most to list")
	cmd.Flags().BoolVar(&o.dead, "dead", false, "list the calls that could not be done")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	cmd.AddCommand(newCallsShow(env), newCallsReplay(env))
	return cmd
}

// listCalls reads pages until there are enough rows.
func listCalls(cmd *cobra.Command, api apiClient, given []string, o callsOptions) ([]callRow, error) {
	path, query := "/v1/calls", url.Values{"namespace": {o.namespace}, "since": {o.since}, "limit": {strconv.Itoa(min(o.limit, 500))}}
	if o.dead {
		path = "/v1/dead"
	} else if o.status != "" {
		query.Set("status", o.status)
	}
	if len(given) == 1 {
		query.Set("function", given[0])
	}
	rows := []callRow{}
	for {
		var page callPage
		if err := api.get(cmd.Context(), path, query, &page); err != nil {
			return nil, err
		}
		rows = append(rows, page.Items...)
		if page.Next == "" || len(rows) >= o.limit {
			return rows[:min(len(rows), o.limit)], nil
		}
		query.Set("after", page.Next)
	}
}

func printCalls(cmd *cobra.Command, rows []callRow, dead bool) {
	out := cmd.OutOrStdout()
	if len(rows) == 0 {
		fmt.Fprintln(out, "None.")
		return
	}
	if dead {
		t := newTable(out, "call", "function", "kind", "attempts", "died", "message")
		for _, row := range rows {
			t.AppendRow(table.Row{row.Call, row.Function, row.Kind, row.Attempts, row.Died.Local().Format(time.DateTime), row.Message})
		}
		t.Render()
		return
	}
	t := newTable(out, "id", "function", "status", "done", "spawned")
	for _, row := range rows {
		id, done := row.Call, "-"
		if id == "" {
			id, done = row.Batch, fmt.Sprintf("%d/%d", row.Finished, row.Inputs)
		}
		t.AppendRow(table.Row{id, row.Function, row.Status, done, row.Spawned.Local().Format(time.DateTime)})
	}
	t.Render()
}

func newCallsShow(env environment) *cobra.Command {
	var addr, namespace string
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a spawned call and why its attempts failed",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			var shown any
			if err := api.get(cmd.Context(), "/v1/calls/"+url.PathEscape(given[0]), nil, &shown); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), shown)
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	return cmd
}

func newCallsReplay(env environment) *cobra.Command {
	return newForEach(env, "replay", "Run calls again that could not be done, with their own inputs and ids", "is queued", func(ctx context.Context, api apiClient, id string) error {
		return api.json(ctx, http.MethodPost, "/v1/dead/"+url.PathEscape(id)+"/replay", nil, nil, nil)
	})
}
