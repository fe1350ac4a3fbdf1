package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/queue"
)

// functionRow is what the gateway says of a function.
type functionRow struct {
	Namespace   string `json:"namespace"`
	App         string `json:"app"`
	Function    string `json:"function"`
	Version     string `json:"version"`
	Min         int    `json:"min"`
	Max         int    `json:"max"`
	Concurrency int    `json:"concurrency"`
	Count       int    `json:"count"`
	Workers     int    `json:"workers"`
	Ready       int    `json:"ready"`
	Pending     int64  `json:"pending"`
	Job         string `json:"job"`
	Error       string `json:"error,omitempty"`
}

func newPs(env environment) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "ps [APP[.FUNCTION]]",
		Short:             "List functions and their workers",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			query := url.Values{"namespace": {namespace}}
			var functions []functionRow
			if err := api.get(cmd.Context(), "/v1/functions", query, &functions); err != nil {
				return err
			}
			var workers []queue.Heartbeat
			if err := api.get(cmd.Context(), "/v1/workers", query, &workers); err != nil {
				return err
			}
			if len(given) == 1 {
				functions, workers = only(given[0], functions, workers)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"functions": functions, "workers": workers})
			}
			printFunctions(cmd.OutOrStdout(), functions)
			printWorkers(cmd.OutOrStdout(), workers)
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// addrUsage explains the flag of every command that talks to a gateway.
const addrUsage = "gateway address (default: FRESHET_ADDR, else the context's, else that of 'freshet up')"

// addClientFlags adds the flags of every command that talks to a gateway.
func addClientFlags(cmd *cobra.Command, addr, namespace *string) {
	cmd.Flags().StringVar(addr, "addr", "", addrUsage)
	cmd.Flags().StringVar(namespace, "namespace", "default", "environment, a Nomad namespace (FRESHET_NAMESPACE or the context may say another)")
}

// only keeps what belongs to an app or to one of its functions.
func only(name string, functions []functionRow, workers []queue.Heartbeat) ([]functionRow, []queue.Heartbeat) {
	var keptFunctions []functionRow
	for _, f := range functions {
		if f.App == name || f.App+"."+f.Function == name {
			keptFunctions = append(keptFunctions, f)
		}
	}
	var keptWorkers []queue.Heartbeat
	for _, w := range workers {
		if w.App == name || w.App+"."+w.Function == name {
			keptWorkers = append(keptWorkers, w)
		}
	}
	return keptFunctions, keptWorkers
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// newTable is a table in the plain style of the tools people know: no borders, upper-case heads.
func newTable(out io.Writer, heads ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatUpper
	style.Box.PaddingLeft = ""
	style.Box.PaddingRight = "   "
	t.SetStyle(style)
	t.AppendHeader(table.Row(heads))
	return t
}

func printFunctions(out io.Writer, functions []functionRow) {
	if len(functions) == 0 {
		fmt.Fprintln(out, "No functions. Deploy one with `freshet deploy DIR`.")
		return
	}
	t := newTable(out, "function", "version", "workers", "ready", "queued", "scale")
	for _, f := range functions {
		if f.Error != "" {
			t.AppendRow(table.Row{f.App + "." + f.Function, f.Error})
			continue
		}
		t.AppendRow(table.Row{
			f.App + "." + f.Function, or(f.Version, "-"), fmt.Sprintf("%d/%d", f.Workers, f.Count), f.Ready, f.Pending,
			fmt.Sprintf("%d–%d", f.Min, f.Max),
		})
	}
	t.Render()
}

func printWorkers(out io.Writer, workers []queue.Heartbeat) {
	if len(workers) == 0 {
		return
	}
	fmt.Fprintln(out)
	t := newTable(out, "worker", "function", "state", "busy", "calls", "failed", "from", "ready after", "age")
	for _, w := range workers {
		from, ready := "cold", "-"
		if w.Thawed {
			from = "snapshot"
		}
		if !w.Ready.IsZero() {
			ready = w.Ready.Sub(w.Started).Round(time.Millisecond).String()
		}
		t.AppendRow(table.Row{
			w.Alloc[:min(8, len(w.Alloc))], w.App + "." + w.Function, w.State, fmt.Sprintf("%d/%d", w.Busy, w.Slots), w.Done, w.Failed,
			from, ready, time.Since(w.Started).Round(time.Second),
		})
	}
	t.Render()
}
