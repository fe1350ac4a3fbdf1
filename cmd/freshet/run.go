package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/client"
)

type runOptions struct {
	deployOptions
	classOptions

	file, contentType string
	timeout           time.Duration
	verbose, quiet    bool
}

func newRun(env environment) *cobra.Command {
	o := runOptions{deployOptions: deployOptions{sdk: sdk{env.cache}}}
	cmd := &cobra.Command{
		Use:   "run [DIR|FILE.py] [FUNCTION] [INPUT]",
		Short: "Try a function out: deploy it for one call, and leave nothing",
		Long: `Deploys the Go program in DIR (default: this folder), or a Python file, under a name of its own, calls a function, prints what
it logs on standard error and its output on standard output, and removes the app again. What is deployed under the app's own name is
not touched. Without FUNCTION the app must have one only. Exit code 3 says that the call itself ended in an error, which is printed.`,
		Example: `  freshet run
  freshet run . hello Ada
  freshet run app.py hello '{"name":"Ada"}' -v`,
		Args: args(cobra.MaximumNArgs(3)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			source, function := ".", ""
			if len(given) > 0 {
				source = given[0]
			}
			if len(given) > 1 {
				function = given[1]
			}
			if _, err := os.Stat(source); err != nil {
				return usagef(cmd, "%q is no folder and no file: write `freshet run . FUNCTION` for the app in this folder", source)
			}
			request, input, err := readInput(cmd, o.request(function), given[min(len(given), 2):], o.file)
			if err != nil {
				return err
			}
			defer func() { _ = input.Close() }() // read only
			request.ContentType = guessType(o.contentType, request.Body)
			return run(cmd, env, source, function, request, o)
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	o.addBuildFlags(cmd)
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "read the input from a file")
	cmd.Flags().StringVar(&o.contentType, "content-type", "", "content type of the input (default: application/json where it looks like it, else text/plain)")
	o.classOptions.addFlags(cmd)
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "give up waiting after this time (default: never)")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON: output or error, and where the time went")
	cmd.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "say where the time went")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "do not print the logs")
	return cmd
}

// run is one round: deploy, call, remove.
func run(cmd *cobra.Command, env environment, source, function string, request client.Request, o runOptions) (err error) {
	api, err := env.api(o.addr)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	t := newTrial(api, o.namespace, cmd.ErrOrStderr())
	defer func() { err = errors.Join(err, t.end(ctx)) }()
	began := time.Now()
	answer, err := t.deploy(ctx, source, o.deployOptions, randomName)
	if err != nil {
		return err
	}
	if function, err = pick(cmd, functionsOf(answer), function); err != nil {
		return err
	}
	if !o.quiet {
		if err := t.follow(ctx, []string{function}, time.Minute); err != nil {
			return err
		}
	}
	calls, err := env.client(o.addr, client.Namespace(o.namespace), client.Patience(10*time.Second))
	if err != nil {
		return err
	}
	request.Function = answer.App + "." + function
	response, output, err := calls.Open(ctx, request)
	if err != nil {
		t.drain(ctx)
		return failedCall(cmd, late(ctx, err, o.timeout), o.asJSON)
	}
	if o.asJSON {
		err = printResponse(cmd.OutOrStdout(), response, output)
	} else {
		err = printOutput(cmd, output)
	}
	took := time.Since(began)
	t.drain(ctx)
	if o.verbose && err == nil {
		t.say("%s in %s: built in %s, uploaded in %s, registered in %s, waited for a start %s, ran %s", function, short(took),
			short(answer.built), short(answer.uploaded), short(answer.registered), short(response.Started), short(response.Run))
	}
	return err
}
