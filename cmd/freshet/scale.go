package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/local"
	autoscaler "github.com/freshet-dev/freshet/scheduler-ext"
)

func newScale(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Say how functions are scaled",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newScaleWhy(env))
	return cmd
}

func newScaleWhy(env environment) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why APP.FUNCTION",
		Short: "Say what the autoscaler sees of a function, what it wants, and what holds it back",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			app, function, err := splitName(given[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			base, err := env.autoscaler(addr)
			if err != nil {
				return err
			}
			why, err := askWhy(cmd.Context(), base, namespace, app, function)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), why)
			}
			printWhy(cmd.OutOrStdout(), why)
			return nil
		},
	}
	cmd.Flags().StringVar(&addr, "autoscaler", "", "autoscaler address (default: that of 'freshet up')")
	cmd.Flags().StringVar(&namespace, "namespace", "default", "environment, a Nomad namespace")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// autoscaler is the address of one: the one given, else that of `freshet up` on this machine.
func (e environment) autoscaler(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	state, err := local.LoadState(e.state)
	if err != nil {
		return "", fmt.Errorf("find an autoscaler: none runs here from %s: start one with `freshet up`, or name one with --autoscaler", e.state)
	}
	return state.Autoscaler(), nil
}

func askWhy(ctx context.Context, base, namespace, app, function string) (autoscaler.Why, error) {
	address := strings.TrimRight(base, "/") + "/v1/scaling/" + app + "/" + function + "?" + url.Values{"namespace": {namespace}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return autoscaler.Why{}, fmt.Errorf("make request: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return autoscaler.Why{}, fmt.Errorf("reach the autoscaler: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	var answer struct {
		autoscaler.Why
		Error string `json:"error"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return autoscaler.Why{}, fmt.Errorf("read the autoscaler's answer: %w", err)
	}
	if answer.Error != "" {
		return autoscaler.Why{}, errors.New(answer.Error)
	}
	return answer.Why, nil
}

func printWhy(out io.Writer, why autoscaler.Why) {
	fmt.Fprintf(out, "%s.%s has %d of %d workers ready: %s.\n", why.App, why.Function, why.Ready, why.Count, why.Reason)
	fmt.Fprintf(out, "\nsees    %d calls waiting and running, for which it would have %d workers\n", why.Depth, why.Need)
	fmt.Fprintf(out, "wants   %d workers, of at least %d and at most %d\n", why.Want, why.Policy.Min, why.Policy.Max)
	if why.Resting > 0 {
		fmt.Fprintf(out, "        %d of the workers rest, because they are about to go\n", why.Resting)
	}
	if why.Service > 0 {
		fmt.Fprintf(out, "knows   a call takes %s\n", why.Service)
	}
	if why.Start > 0 {
		fmt.Fprintf(out, "knows   a start takes %s\n", why.Start)
	}
	for _, group := range slices.Sorted(maps.Keys(why.Groups)) {
		fmt.Fprintf(out, "group   %s has %d\n", group, why.Groups[group])
	}
	if len(why.Held) == 0 {
		fmt.Fprintln(out, "held    by nothing")
	}
	for _, held := range why.Held {
		fmt.Fprintf(out, "held    %s\n", held)
	}
}
