package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/queue"
)

// componentOptions are what gateway and autoscaler have in common.
type componentOptions struct {
	listen, nats, nomad string
}

func (o *componentOptions) addFlags(cmd *cobra.Command, listen string) {
	cmd.Flags().StringVar(&o.listen, "listen", listen, "address to listen on")
	cmd.Flags().StringVar(&o.nats, "nats", nats.DefaultURL, "NATS servers; user and password come from FRESHET_NATS_USER and FRESHET_NATS_PASSWORD")
	cmd.Flags().StringVar(&o.nomad, "nomad", "http://127.0.0.1:4646", "Nomad agent")
}

// memoryTarget is where a component's garbage collector begins to work harder. It is no limit: load may need more.
const memoryTarget = 96 << 20

// garbage is how much may be left to collect, in percent of what is in use: calls pass through, and little of them stays.
const garbage = 300

// connectNATS connects for ever: components start in any order and outlive each other.
func connectNATS(name, url string, env environment, log zerolog.Logger) (*nats.Conn, error) {
	debug.SetMemoryLimit(memoryTarget)
	debug.SetGCPercent(garbage)
	nc, err := nats.Connect(url,
		nats.Name(name),
		nats.UserInfo(env.natsUser, env.natsPassword),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // a server that is being set up anew refuses for a while
		nats.ReconnectWait(100*time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.PingInterval(10*time.Second),
		nats.SetCustomDialer(queue.Dialer{}),
		nats.ReconnectBufSize(-1), // while NATS is away a publish fails at once, and the caller is told
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn().Err(err).Msg("lost NATS; reconnecting")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info().Msg("NATS is back") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn().Err(err).Msg("NATS reports") }),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", url, err)
	}
	return nc, nil
}

func connectNomad(address string) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = address
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("set up Nomad client: %w", err)
	}
	return client, nil
}

func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// shutdownGrace is how long requests may take to end when a component stops.
const shutdownGrace = 10 * time.Second

// serveHTTP serves until the context ends, then lets requests finish.
func serveHTTP(ctx context.Context, address string, handler http.Handler, log zerolog.Logger) error {
	listener, err := listen(ctx, address)
	if err != nil {
		return err
	}
	return serveOn(ctx, listener, handler, log)
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}

// serveOn is serveHTTP on a listener, which it closes.
func serveOn(ctx context.Context, listener net.Listener, handler http.Handler, log zerolog.Logger) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true) // where a TLS listener agreed on it
	server.Protocols.SetUnencryptedHTTP2(true)
	log.Info().Str("address", listener.Addr().String()).Msg("listening")
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // received below, always
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	err := server.Shutdown(stopping)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn().Msg("requests did not end in time; their calls go on")
		err = server.Close()
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	return nil
}
