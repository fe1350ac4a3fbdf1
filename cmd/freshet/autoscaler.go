package main

import (
	"context"
	"fmt"
	"os"

	"github.com/hashicorp/consul/api"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/jobs"
	autoscaler "github.com/freshet-dev/freshet/scheduler-ext"
	"github.com/freshet-dev/freshet/scheduler-ext/leader"
)

// Values of --lock.
const (
	lockNATS   = "nats"
	lockConsul = "consul"
)

func newAutoscaler(env environment) *cobra.Command {
	var o componentOptions
	var lock string
	cmd := &cobra.Command{
		Use:   "autoscaler",
		Short: "Run the autoscaler",
		Long: `Runs the autoscaler, which sets the number of workers of each function by the depth of its queue. Run several for
safety: one acts, and when it dies another one does within three seconds. They keep nothing: all is read from Nomad and NATS. Each
serves /healthz, /metrics and /v1/scaling/APP/FUNCTION.

Which one acts is said by a lease in NATS or, with --lock consul, by a session's lock in Consul, whose agent CONSUL_HTTP_ADDR
and Consul's other variables name. All instances must use the same.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runAutoscaler(cmd, env, o, lock) },
	}
	o.addFlags(cmd, "127.0.0.1:8601")
	cmd.Flags().StringVar(&lock, "lock", lockNATS, "what says which instance acts: nats or consul")
	return cmd
}

func runAutoscaler(cmd *cobra.Command, env environment, o componentOptions, lock string) error {
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
	elector, err := newElector(nc, lock, log)
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

// elector decides which instance acts.
type elector interface {
	autoscaler.Leader
	Open(ctx context.Context) error
	Close()
}

func newElector(nc *nats.Conn, lock string, log zerolog.Logger) (elector, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("find this machine's name: %w", err)
	}
	name := fmt.Sprintf("%s %d", host, os.Getpid())
	switch lock {
	case lockNATS:
		return leader.New(leader.Config{NATS: nc, Name: name, Log: log})
	case lockConsul:
		client, err := api.NewClient(api.DefaultConfig())
		if err != nil {
			return nil, fmt.Errorf("set up Consul client: %w", err)
		}
		return leader.NewConsul(client, name, log), nil
	default:
		return nil, &usageError{"autoscaler", fmt.Errorf("--lock %s: write %s or %s", lock, lockNATS, lockConsul)}
	}
}
