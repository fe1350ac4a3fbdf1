package main

import (
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/jobs"
	autoscaler "github.com/freshet-dev/freshet/scheduler-ext"
)

func newAutoscaler(env environment) *cobra.Command {
	var o componentOptions
	cmd := &cobra.Command{
		Use:   "autoscaler",
		Short: "Run the autoscaler",
		Long: `Runs the autoscaler, which sets the number of workers of each function by the depth of its queue. Run one; it keeps
nothing, so another machine can take over at any time. It serves /healthz and /metrics.`,
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
	scaler, err := autoscaler.New(autoscaler.Config{NATS: nc, Nomad: nomad, Functions: watcher, Registry: newRegistry(), Log: log})
	if err != nil {
		return err
	}
	if err := scaler.Open(ctx); err != nil {
		return err
	}
	defer scaler.Close()
	return serveHTTP(ctx, o.listen, scaler.Handler(), log)
}
