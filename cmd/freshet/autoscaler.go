package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/jobs"
	autoscaler "github.com/freshet-dev/freshet/scheduler-ext"
	"github.com/freshet-dev/freshet/scheduler-ext/leader"
)

func newAutoscaler(env environment) *cobra.Command {
	var o componentOptions
	cmd := &cobra.Command{
		Use:   "autoscaler",
		Short: "Run the autoscaler",
		Long: `Runs the autoscaler, which sets the number of workers of each function by the depth of its queue. Run several for
safety: one acts, and when it dies another one does within three seconds. They keep nothing: all is read from Nomad and NATS. Each
serves /healthz, /metrics and /v1/scaling/APP/FUNCTION.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runAutoscaler(cmd, env, o) },
	}
	o.addFlags(cmd, "127.0.0.1:8601")
	return cmd
}

func runAutoscaler(cmd *cobra.Command, env environment, o componentOptions) error {
	ctx, log := cmd.Context(), newLogger("autoscaler")
	nc, err := connectNATS("autoscaler", o.nats, env, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	nomad, err := connectNomad(o.nomad)
	if err != nil {
		return err
	}
	watcher := jobs.NewWatcher(nomad, nil, log)
	watcher.Open(ctx)
	defer watcher.Close()
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find this machine's name: %w", err)
	}
	elector, err := leader.New(leader.Config{NATS: nc, Name: fmt.Sprintf("%s %d", host, os.Getpid()), Log: log})
	if err != nil {
		return err
	}
	scaler, err := autoscaler.New(autoscaler.Config{
		NATS: nc, Nomad: nomad, Functions: watcher, Leader: elector, Registry: newRegistry(), Log: log,
	})
	if err != nil {
		return err
	}
	if err := elector.Open(ctx); err != nil {
		return err
	}
	defer elector.Close()
	if err := scaler.Open(ctx); err != nil {
		return err
	}
	defer scaler.Close()
	return serveHTTP(ctx, o.listen, scaler.Handler(), log)
}
