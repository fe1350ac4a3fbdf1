// Command freshet is the one tool: it runs a cluster on one machine, deploys and calls functions, and is gateway and
// autoscaler of a cluster of many.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot(newEnvironment()).ExecuteContext(ctx)
	stop()
	os.Exit(report(err))
}

func newRoot(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "freshet",
		Short: "A serverless cloud on your own Nomad cluster",
		Long: `freshet runs functions on your own Nomad cluster: deploy with one command, call over HTTP,
and sandboxed workers start from frozen memory, scale with the queue and go back to zero.

A first round, on one machine:

  freshet up --detach
  freshet deploy examples/gosearch
  freshet call gosearch.search '{"q":"http server"}'
  freshet ps`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          args(knownCommand),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return env.chooseNamespace(cmd) },
	}
	root.PersistentFlags().StringVar(env.chosen, "context", "", "cluster to talk to, one of 'freshet context ls' (default: FRESHET_CONTEXT, else the one in use)")
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{command: cmd.CommandPath(), err: err}
	})
	root.AddGroup(
		&cobra.Group{ID: "use", Title: "Functions:"},
		&cobra.Group{ID: "run", Title: "One machine:"},
		&cobra.Group{ID: "part", Title: "Components of a cluster:"},
	)
	for _, cmd := range []*cobra.Command{
		newNew(env), newRun(env), newServe(env), newDeploy(env), newCall(env), newMap(env), newSpawn(env), newResult(env), newCancel(env), newCalls(env), newSchedule(env), newSecret(env), newVolume(env), newToken(env),
		newPs(env), newTop(env), newInspect(env), newLogs(env), newExec(env), newShell(env), newScale(env), newDelete(env), newHistory(env), newRollback(env), newImage(env), newContext(env), newJobspec(env), newSimulate(),
	} {
		cmd.GroupID = "use"
		root.AddCommand(cmd)
	}
	for _, cmd := range machineCommands(env) {
		cmd.GroupID = "run"
		root.AddCommand(cmd)
	}
	for _, cmd := range []*cobra.Command{newGateway(env), newAutoscaler(env)} {
		cmd.GroupID = "part"
		root.AddCommand(cmd)
	}
	root.AddCommand(newVersion(), newReference())
	return root
}

// knownCommand refuses what is no command, and names those that look like it.
func knownCommand(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(given[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q: did you mean %s?", given[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("unknown command %q", given[0])
}

// args makes a check of the positional arguments a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		return nil
	}
}

func usagef(cmd *cobra.Command, format string, values ...any) error {
	return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(format, values...)}
}
