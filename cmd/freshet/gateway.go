package main

import (
	"context"
	"net"

	"github.com/hashicorp/nomad/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/internal/secrets"
	"github.com/freshet-dev/freshet/internal/volumes"
	"github.com/freshet-dev/freshet/jobspecs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

type gatewayOptions struct {
	componentOptions
	blobs    string
	replicas int
	auth     string
	origins  []string
	private  bool
	payload  int64
	volumes  string
	web      webOptions
}

func newGateway(env environment) *cobra.Command {
	var o gatewayOptions
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run a gateway",
		Long: `Runs a gateway, which turns HTTP calls into queued ones and answers with their results, and takes deploys. Run as many as
you like. It serves /healthz, /readyz and /metrics, which ask for no token.

Callers show a token unless --auth is off. The first one, which makes the others, is the operator's: FRESHET_ROOT_TOKEN.
FRESHET_CALLBACK_SECRET signs what callers are told who want to know that their calls ended.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runGateway(cmd, env, o) },
	}
	o.addFlags(cmd, "127.0.0.1:8600")
	cmd.Flags().StringVar(&o.blobs, "blobs", "", "URL of the blob store, such as file:///var/lib/freshet/blobs")
	cmd.Flags().StringVar(&o.volumes, "volumes", "", "directory of the cluster's volumes, where this gateway reaches them (default: none)")
	cmd.Flags().IntVar(&o.replicas, "replicas", 1, "copies of each stream in the NATS cluster")
	cmd.Flags().StringVar(&o.auth, "auth", "", "ask callers for a token: on or off (default: off on a loopback address, else on)")
	cmd.Flags().StringSliceVar(&o.origins, "origin", nil, "web origins whose pages may use the API, * for all (default: none)")
	cmd.Flags().BoolVar(&o.private, "private-callbacks", false, "tell callers at addresses that are not public too")
	cmd.Flags().Int64Var(&o.payload, "max-payload", queue.MaxPayload, "largest input of a call, in bytes")
	o.web.addFlags(cmd)
	return cmd
}

// asks tells whether callers must show a token.
func (o gatewayOptions) asks(cmd *cobra.Command) (bool, error) {
	switch o.auth {
	case "on", "off":
		return o.auth == "on", nil
	case "":
		host, _, err := net.SplitHostPort(o.listen)
		if err != nil {
			return false, usagef(cmd, "--listen %s: %w", o.listen, err)
		}
		address := net.ParseIP(host)
		return host != "localhost" && (address == nil || !address.IsLoopback()), nil
	}
	return false, usagef(cmd, "--auth %s: use on or off", o.auth)
}

// openVolumes opens the directory of the volumes; nil where there is none.
func (o gatewayOptions) openVolumes() (*volumes.Store, error) {
	if o.volumes == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return volumes.Open(o.volumes)
}

func runGateway(cmd *cobra.Command, env environment, o gatewayOptions) error {
	if o.blobs == "" {
		return usagef(cmd, "--blobs: name the blob store, such as file:///var/lib/freshet/blobs")
	}
	if err := o.web.check(cmd); err != nil {
		return err
	}
	auth, err := o.asks(cmd)
	if err != nil {
		return err
	}
	ctx, log := cmd.Context(), newLogger("gateway")
	nc, err := connectNATS("gateway", o.nats, env, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	nomad, err := connectNomad(o.nomad)
	if err != nil {
		return err
	}
	store, err := blobs.Open(ctx, o.blobs)
	if err != nil {
		return err
	}
	kept, err := o.openVolumes()
	if err != nil {
		return err
	}
	watcher := jobs.NewWatcher(nomad, nil, log)
	watcher.Open(ctx)
	defer watcher.Close()
	g, err := gateway.New(gateway.Config{
		NATS: nc, Functions: watcher, Blobs: store, Jobs: nomadJobs{nomad}, Secrets: secrets.New(nomad), Volumes: kept, Streams: queue.Settings{Replicas: o.replicas},
		Registry: prometheus.NewRegistry(), Version: version, Log: log, Auth: auth, RootToken: env.rootToken, Origins: o.origins,
		CallbackSecret: env.callbackSecret, PrivateCallbacks: o.private, MaxPayload: o.payload, WebDomain: o.web.domain,
	})
	if err != nil {
		return err
	}
	if err := g.Open(ctx); err != nil {
		return err
	}
	served := serveWeb(ctx, o.listen, o.web, g, log)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := g.Close(closing); err != nil {
		log.Warn().Err(err).Msg("stop gateway")
	}
	return served
}

// nomadJobs puts functions into Nomad as the jobs that package jobspecs renders.
type nomadJobs struct{ nomad *api.Client }

// App implements gateway.Jobs.
func (n nomadJobs) App(ctx context.Context, namespace, app string) ([]jobs.Job, error) {
	return jobs.App(ctx, n.nomad, namespace, app)
}

// Register implements gateway.Jobs.
func (n nomadJobs) Register(ctx context.Context, function spec.Function) error {
	job, err := jobspecs.Render(function)
	if err != nil {
		return err
	}
	return jobs.Register(ctx, n.nomad, job)
}

// Restore implements gateway.Jobs.
func (n nomadJobs) Restore(ctx context.Context, job jobs.Job) error {
	return jobs.Restore(ctx, n.nomad, job)
}

// Warm implements gateway.Jobs.
func (n nomadJobs) Warm(ctx context.Context, function spec.Function) error {
	job, err := jobspecs.Render(function)
	if err != nil {
		return err
	}
	return jobs.Warm(ctx, n.nomad, job, function.WithDefaults())
}

// Build implements gateway.Jobs.
func (n nomadJobs) Build(ctx context.Context, build jobs.Build, tell func(line string)) error {
	return jobs.RunBuild(ctx, n.nomad, build, tell)
}

// Exec implements gateway.Jobs.
func (n nomadJobs) Exec(ctx context.Context, exec jobs.Exec) (int, error) {
	return jobs.RunExec(ctx, n.nomad, exec)
}

// Sandbox implements gateway.Jobs.
func (n nomadJobs) Sandbox(ctx context.Context, function spec.Function, use func(alloc string) error) error {
	job, err := jobspecs.Render(function)
	if err != nil {
		return err
	}
	return jobs.Sandbox(ctx, n.nomad, job, function.WithDefaults(), use)
}

// Usage implements gateway.Jobs.
func (n nomadJobs) Usage(ctx context.Context, namespace, alloc string) (jobs.Usage, error) {
	return jobs.UsageOf(ctx, n.nomad, namespace, alloc)
}

// Stop implements gateway.Jobs.
func (n nomadJobs) Stop(ctx context.Context, namespace, job string) error {
	return jobs.Stop(ctx, n.nomad, namespace, job)
}

// Restart implements gateway.Jobs.
func (n nomadJobs) Restart(ctx context.Context, namespace, job string) (int, error) {
	return jobs.Restart(ctx, n.nomad, namespace, job)
}

// Warmed implements gateway.Jobs.
func (n nomadJobs) Warmed(ctx context.Context) ([]jobs.Warmed, error) {
	return jobs.ListWarmed(ctx, n.nomad)
}

// PurgeWarmed implements gateway.Jobs.
func (n nomadJobs) PurgeWarmed(ctx context.Context, left jobs.Warmed) error {
	return jobs.PurgeWarmed(ctx, n.nomad, left)
}
