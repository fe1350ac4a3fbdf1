package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/freshet-dev/freshet/sdk/client"
)

type callOptions struct {
	addr, namespace, file, contentType string
	verbose                            bool
	timeout                            time.Duration
}

func newCall(env environment) *cobra.Command {
	var o callOptions
	cmd := &cobra.Command{
		Use:   "call APP.FUNCTION [INPUT]",
		Short: "Call a function and print its output",
		Long: `Calls a function and prints its output. The input is the argument, or a file, or standard input. Exit code 3 says that
the call itself ended in an error, which is printed.`,
		Example: `  freshet call gosearch.search '{"q":"http server"}'
  echo '{"q":"http server"}' | freshet call gosearch.search
  freshet call gosearch.search --file query.json -v`,
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			if _, _, err := splitName(given[0]); err != nil {
				return usagef(cmd, "%w", err)
			}
			input, err := readInput(cmd, given[1:], o.file)
			if err != nil {
				return err
			}
			return call(cmd, env, given[0], input, o)
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "read the input from a file")
	cmd.Flags().StringVar(&o.contentType, "content-type", "", "content type of the input (default: application/json where it looks like it, else text/plain)")
	cmd.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "say where the time went")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "give up waiting after this time (default: never)")
	return cmd
}

func readInput(cmd *cobra.Command, given []string, file string) ([]byte, error) {
	switch {
	case len(given) == 1 && file != "":
		return nil, usagef(cmd, "input %q and --file %q: give one of them", given[0], file)
	case len(given) == 1:
		return []byte(given[0]), nil
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read input: %w", err)
		}
		return data, nil
	}
	if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		return nil, nil // nobody typed anything: an empty input
	}
	data, err := io.ReadAll(cmd.InOrStdin())
	if err != nil {
		return nil, fmt.Errorf("read input: %w", err)
	}
	return data, nil
}

// guessType calls JSON what looks like it.
func guessType(given string, input []byte) string {
	if given != "" {
		return given
	}
	text := strings.TrimSpace(string(input))
	if text == "" || strings.ContainsAny(text[:1], `{["`) || strings.Trim(text[:1], "-0123456789tfn") == "" {
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}

// callFailed is a call that ended in an error of its own.
type callFailed struct{ cause *client.Error }

func (c *callFailed) Error() string { return c.cause.Error() }

func (c *callFailed) Unwrap() error { return c.cause }

func (c *callFailed) print(out io.Writer) {
	fmt.Fprintf(out, "Call failed (%s): %v\n", c.cause.Fault.Kind, c.cause)
	if c.cause.Fault.Traceback != "" {
		fmt.Fprintf(out, "\n%s\n", strings.TrimSpace(c.cause.Fault.Traceback))
	}
	if c.cause.Call != "" {
		fmt.Fprintf(out, "Its id is %s.\n", c.cause.Call)
	}
}

// failed makes a call's own error one with an exit code of its own.
func failed(err error) error {
	var own *client.Error
	if errors.As(err, &own) {
		return &callFailed{own}
	}
	return err
}

func call(cmd *cobra.Command, env environment, function string, input []byte, o callOptions) error {
	c, err := env.client(o.addr, client.Namespace(o.namespace), client.Patience(10*time.Second))
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	began := time.Now()
	response, err := c.Do(ctx, client.Request{
		Function: function, Body: input, ContentType: guessType(o.contentType, input),
	})
	if err != nil {
		return failed(err)
	}
	if _, err := cmd.OutOrStdout().Write(response.Body); err != nil {
		return fmt.Errorf("print output: %w", err)
	}
	if out, ok := cmd.OutOrStdout().(*os.File); ok && term.IsTerminal(int(out.Fd())) {
		fmt.Fprintln(out)
	}
	if o.verbose {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s in %s: queued %s, waited for a start %s, ran %s (call %s, worker %.8s)\n",
			function, short(time.Since(began)), short(response.Queued), short(response.Started), short(response.Run), response.Call, response.Worker)
	}
	return nil
}

// short rounds a duration to what a person reads.
func short(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
