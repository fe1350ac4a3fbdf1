package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
)

// scheduleRow is what the gateway says of a schedule.
type scheduleRow struct {
	Name     string    `json:"name"`
	Function string    `json:"function"`
	Cron     string    `json:"cron"`
	TimeZone string    `json:"time_zone"`
	Every    string    `json:"every"`
	Paused   bool      `json:"paused"`
	Next     time.Time `json:"next"`
	Last     string    `json:"last_call"`
}

func newSchedule(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schedule",
		Short: "Call functions by a clock",
		Example: `  freshet schedule set gosearch.search morning --cron '0 9 * * 1-5' --time-zone Europe/Berlin --input '{"q":"news"}'
  freshet schedule list
  freshet schedule run gosearch.search morning`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newScheduleSet(env), newScheduleList(env))
	for verb, short := range map[string]string{
		"pause":  "Make no calls until it is resumed",
		"resume": "Make calls again",
		"run":    "Make a call now, beside the schedule's own",
		"delete": "End a schedule",
	} {
		cmd.AddCommand(newScheduleVerb(env, verb, short))
	}
	return cmd
}

func schedulePath(function, name string) (string, error) {
	app, fn, err := splitName(function)
	return "/v1/functions/" + url.PathEscape(app) + "/" + url.PathEscape(fn) + "/schedules/" + url.PathEscape(name), err
}

func newScheduleSet(env environment) *cobra.Command {
	var addr, namespace, cron, zone, input, missed string
	var asJSON bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "set APP.FUNCTION NAME",
		Short: "Make a schedule, or replace it",
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			path, err := schedulePath(given[0], given[1])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			request := map[string]any{"cron": cron, "time_zone": zone, "missed": missed}
			if every > 0 {
				request["every"] = every.String()
			}
			if input != "" {
				if !json.Valid([]byte(input)) {
					return usagef(cmd, "--input %s: write JSON", input)
				}
				request["input"] = json.RawMessage(input)
			}
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			var row scheduleRow
			if err := api.json(cmd.Context(), http.MethodPut, path, url.Values{"namespace": {namespace}}, request, &row); err != nil {
				return err
			}
			return say(cmd, asJSON, row, "%s calls %s next at %s.\n", row.Name, row.Function, row.Next.Local().Format(time.DateTime))
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	addJSONFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&cron, "cron", "", "five fields: minute, hour, day, month, weekday")
	cmd.Flags().StringVar(&zone, "time-zone", "", "IANA time zone of the cron expression (default: UTC)")
	cmd.Flags().DurationVar(&every, "every", 0, "a period, in place of a cron expression")
	cmd.Flags().StringVar(&input, "input", "", "the calls' input, JSON")
	cmd.Flags().StringVar(&missed, "missed", "latest", "ticks that nobody could see to: latest, all or skip")
	return cmd
}

func newScheduleList(env environment) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [APP[.FUNCTION]]",
		Short: "List schedules",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			query := url.Values{"namespace": {namespace}}
			if len(given) == 1 {
				query.Set("function", given[0])
			}
			var rows []scheduleRow
			if err := api.get(cmd.Context(), "/v1/schedules", query, &rows); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			t := newTable(cmd.OutOrStdout(), "function", "name", "when", "next", "last call")
			for _, row := range rows {
				next := "paused"
				if !row.Paused {
					next = row.Next.Local().Format(time.DateTime)
				}
				when := "every " + row.Every
				if row.Cron != "" {
					when = row.Cron + " " + or(row.TimeZone, "UTC")
				}
				t.AppendRow(table.Row{row.Function, row.Name, when, next, or(row.Last, "-")})
			}
			t.Render()
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newScheduleVerb(env environment, verb, short string) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   verb + " APP.FUNCTION NAME",
		Short: short,
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			path, err := schedulePath(given[0], given[1])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			query := url.Values{"namespace": {namespace}}
			if verb == "delete" {
				if err := api.json(cmd.Context(), http.MethodDelete, path, query, nil, nil); err != nil {
					return err
				}
				return say(cmd, asJSON, map[string]string{"name": given[1], "status": "deleted"}, "%s is deleted.\n", given[1])
			}
			var answer struct {
				scheduleRow

				Call string `json:"call,omitempty"`
			}
			if err := api.json(cmd.Context(), http.MethodPost, path+"/"+verb, query, nil, &answer); err != nil {
				return err
			}
			switch {
			case verb == "run":
				return say(cmd, asJSON, map[string]string{"call": answer.Call}, "%s\n", answer.Call)
			case asJSON:
				return printJSON(cmd.OutOrStdout(), answer.scheduleRow)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is %sd.\n", given[1], verb)
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	addJSONFlag(cmd, &asJSON)
	return cmd
}
