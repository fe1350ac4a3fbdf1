package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/queue"
)

type logsOptions struct {
	addr, namespace, call string
	follow, asJSON        bool
	since                 time.Duration
	tail                  int
}

func newLogs(env environment) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:               "logs APP.FUNCTION",
		Short:             "Show what a function's calls and workers wrote",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			app, function, err := splitName(given[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			return logs(cmd, api, app, function, o)
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on with new lines as they come")
	cmd.Flags().DurationVar(&o.since, "since", time.Hour, "how far back to begin")
	cmd.Flags().IntVarP(&o.tail, "tail", "n", 1000, "at most this many old lines")
	cmd.Flags().StringVar(&o.call, "call", "", "only lines of this call")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON lines")
	return cmd
}

func logs(cmd *cobra.Command, client apiClient, app, function string, o logsOptions) error {
	query := url.Values{
		"namespace": {o.namespace}, "since": {o.since.String()}, "tail": {strconv.Itoa(o.tail)},
	}
	if o.call != "" {
		query.Set("call", o.call)
	}
	if o.follow {
		query.Set("follow", "true")
	}
	response, err := client.do(cmd.Context(), http.MethodGet, logsPath(app, function), query, nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read only
	return readRecords(cmd.Context(), response.Body, func(record queue.LogRecord) error {
		return printRecord(cmd.OutOrStdout(), record, o.asJSON)
	})
}

func logsPath(app, function string) string { return "/v1/functions/" + app + "/" + function + "/logs" }

// readRecords gives each line of a log to take, until its end or the context's.
func readRecords(ctx context.Context, from io.Reader, take func(queue.LogRecord) error) error {
	decoder := json.NewDecoder(from)
	for {
		var record queue.LogRecord
		err := decoder.Decode(&record)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read logs: %w", err)
		}
		if err := take(record); err != nil {
			return err
		}
	}
}

func printRecord(out io.Writer, record queue.LogRecord, asJSON bool) error {
	var err error
	if asJSON {
		err = json.NewEncoder(out).Encode(record)
	} else {
		who := record.Alloc[:min(8, len(record.Alloc))]
		if record.Call != "" {
			who += " " + record.Call
		}
		_, err = fmt.Fprintf(out, "%s %s  %s\n", record.Time.Local().Format("15:04:05.000"), who, record.Text)
	}
	if err != nil {
		return fmt.Errorf("print log line: %w", err)
	}
	return nil
}
