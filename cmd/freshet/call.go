package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/client"
)

type callOptions struct {
	classOptions

	addr, namespace, file, contentType string
	verbose, asJSON                    bool
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
  freshet call gosearch.search --file query.json -v
  freshet call llm.Model --method generate --param size=small '"Once upon"'`,
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			if _, _, err := splitName(given[0]); err != nil {
				return usagef(cmd, "%w", err)
			}
			request, input, err := readInput(cmd, o.request(given[0]), given[1:], o.file)
			if err != nil {
				return err
			}
			defer func() { _ = input.Close() }() // read only
			request.ContentType = guessType(o.contentType, request.Body)
			return call(cmd, env, request, o)
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	o.classOptions.addFlags(cmd)
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "read the input from a file")
	cmd.Flags().StringVar(&o.contentType, "content-type", "", "content type of the input (default: application/json where it looks like it, else text/plain)")
	cmd.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "say where the time went")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "give up waiting after this time (default: never)")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON: output or error, and where the time went")
	return cmd
}

// held is the most of an input that is read before it is sent: what is longer is sent as it is read.
const held = queue.MaxInline

// readInput finds a call's input. Close it.
func readInput(cmd *cobra.Command, request client.Request, given []string, file string) (client.Request, io.Closer, error) {
	var in io.Reader
	closer := io.NopCloser(nil)
	switch {
	case len(given) == 1 && file != "":
		return request, nil, usagef(cmd, "input %q and --file %q: give one of them", given[0], file)
	case len(given) == 1:
		request.Body = []byte(given[0])
		return request, closer, nil
	case file != "":
		opened, err := os.Open(file)
		if err != nil {
			return request, nil, fmt.Errorf("read input: %w", err)
		}
		in, closer = opened, opened
	default:
		in = cmd.InOrStdin()
		if typed, ok := in.(*os.File); ok && term.IsTerminal(int(typed.Fd())) {
			return request, closer, nil // nobody typed anything: an empty input
		}
	}
	var err error
	if request.Body, err = io.ReadAll(io.LimitReader(in, held+1)); err != nil {
		return request, nil, errors.Join(fmt.Errorf("read input: %w", err), closer.Close())
	}
	if len(request.Body) > held {
		request.Reader = io.MultiReader(bytes.NewReader(request.Body), in)
	}
	return request, closer, nil
}

// guessType calls JSON what looks like it: what begins like an object, a list or a text, though it may be wrong, and what is a number or a word
// of JSON as a whole.
func guessType(given string, input []byte) string {
	if given != "" {
		return given
	}
	text := strings.TrimSpace(string(input[:min(len(input), 4<<10)]))
	if text == "" || strings.ContainsAny(text[:1], `{["`) || json.Valid([]byte(text)) {
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}

func call(cmd *cobra.Command, env environment, request client.Request, o callOptions) error {
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
	response, output, err := c.Open(ctx, request)
	if err != nil {
		return failedCall(cmd, late(ctx, err, o.timeout), o.asJSON)
	}
	if o.asJSON {
		return printResponse(cmd.OutOrStdout(), response, output)
	}
	if err := printOutput(cmd, output); err != nil {
		return err
	}
	if o.verbose {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s in %s: queued %s, waited for a start %s, ran %s (call %s, worker %.8s)\n",
			request.Function, short(time.Since(began)), short(response.Queued), short(response.Started), short(response.Run), response.Call, response.Worker)
	}
	return nil
}

// printOutput prints an output as it comes, and on a terminal ends its line.
func printOutput(cmd *cobra.Command, output io.ReadCloser) error {
	defer func() { _ = output.Close() }() // read to its end
	if _, err := io.Copy(cmd.OutOrStdout(), output); err != nil {
		return fmt.Errorf("print output: %w", err)
	}
	if onTerminal(cmd.OutOrStdout()) {
		fmt.Fprintln(cmd.OutOrStdout())
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
