// Package gateway is freshet's way in over HTTP: it turns calls into messages of package queue and waits for their
// results, lists functions and workers, keeps code in the blob store and registers deployed apps with Nomad.
//
// A gateway keeps nothing that matters: calls and results live in NATS, functions in Nomad. Any number of them may run.
package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	history "github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/gateway/web"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/internal/volumes"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// Functions are the deployed functions, as Nomad has them.
type Functions interface {
	// Get finds a function.
	Get(namespace, app, name string) (spec.Function, bool)
	// Ready says that the functions were read at least once.
	Ready() bool
	// Entry finds a function with its job, List all of them.
	Entry(key queue.Function) (jobs.Entry, bool)
	List() []jobs.Entry
	// Await returns when the function is known in this version, or the context ends.
	Await(ctx context.Context, namespace, app, name, version string)
}

// Blobs is the store that programs are uploaded to.
type Blobs interface {
	Has(ctx context.Context, digest string) (bool, error)
	Put(ctx context.Context, digest string, in io.Reader) error
	Open(ctx context.Context, digest string) (*blobs.Reader, error)
	Payloads() *blobs.Payloads
	Images() *blobs.Images
}

// Config is what a gateway is made of. Every field without a default is needed.
type Config struct {
	// NATS is the connection of the gateway's own user. It should reconnect for ever; the caller closes it after Close.
	NATS *nats.Conn
	// Functions are the functions that can be called.
	Functions Functions
	// Blobs takes uploaded programs, Jobs deployed functions.
	Blobs Blobs
	Jobs  Jobs
	// Secrets keeps the functions' secrets. Without it there are none.
	Secrets Secrets
	// Volumes are those of the cluster, where this gateway reaches them.
	Volumes *volumes.Store
	// Streams are the operator's choices for the streams, which the gateway makes where they are missing.
	Streams queue.Settings
	// Auth asks every caller for a token; RootToken is the operator's own, which may do everything. Off by default.
	Auth      bool
	RootToken string
	// Origins are the web origins whose pages may use the API; "*" for all. None by default.
	Origins []string
	// CallbackSecret signs what is told to callers who want to know that their calls ended; without one nobody is told. All gateways
	// have the same. PrivateCallbacks lets them be told at addresses that are not public.
	CallbackSecret   string
	PrivateCallbacks bool
	// MaxPayload is the largest input of a call, in bytes. Default queue.MaxPayload, 4 GiB.
	MaxPayload int64
	// BodyWait is how long the body of a call may take, beside a second for each 16 KiB of it. Default 30 s.
	BodyWait time.Duration
	// PayloadGrace is how long what no call refers to is kept in the blob store: longer than clocks of the store and of NATS differ.
	// Default 1 h. PayloadSweep is how often it is looked through. Default 1 min.
	PayloadGrace time.Duration
	PayloadSweep time.Duration
	// WebDomain is what the host names of functions with web endpoints end in, such as "example.org" for app--function.example.org.
	// None by default: they are then reached by path alone.
	WebDomain string
	// Registry takes the metrics and is served at /metrics.
	Registry *prometheus.Registry
	// Version is shown in the metrics.
	Version string
	// Log takes what the gateway has to say; calls themselves at debug level only.
	Log zerolog.Logger
}

// Gateway answers freshet's HTTP API. New makes it, Open starts it, Close ends it.
type Gateway struct {
	*caller

	guard  *guard
	tokens *tokenAPI
	spawns *spawns
	dead   *deadCalls

	schedules *schedules
	deploys   *deploys
	images    *images
	secrets   *secretAPI
	volumes   *volumeAPI
	execs     *execs
	logs      *logReader
	web       *web.Door
	blobs     Blobs
	sweep     *sweep
	streams   queue.Settings

	handler http.Handler

	stop   sync.Once
	cancel context.CancelFunc
	subs   []*nats.Subscription
	done   sync.WaitGroup
}

// exchange is the gateway's side of the queue: it publishes calls and hands their results to the requests that wait.
type exchange struct {
	id  string // names this gateway's reply subjects
	nc  *nats.Conn
	js  jetstream.JetStream
	log zerolog.Logger
	// bulk publishes many calls without waiting for each.
	bulk jetstream.JetStream

	payloads *payloads
	keep     kept

	waiters *waiters
	workers *workers
	ready   atomic.Pointer[stores] // nil until the streams are there
	stopped chan struct{}          // closed by Close
}

// stores are the handles of what the gateway reads in NATS.
type stores struct {
	results jetstream.Stream
	keys    jetstream.KeyValue
	tokens  jetstream.KeyValue
	// schedules are followed by every gateway.
	schedules jetstream.KeyValue
	deploys   history.History
	// pools says which combinations of parameters were called lately, batches which batches' ends are to be told.
	pools, batches jetstream.KeyValue
}

// New makes a gateway and starts nothing.
func New(config Config) (*Gateway, error) {
	switch {
	case config.NATS == nil:
		return nil, errors.New("make gateway: no NATS connection")
	case config.Functions == nil:
		return nil, errors.New("make gateway: no functions")
	case config.Blobs == nil || config.Jobs == nil:
		return nil, errors.New("make gateway: no blob store or no jobs")
	case config.Registry == nil:
		return nil, errors.New("make gateway: no metrics registry")
	}
	js, err := jetstream.New(config.NATS)
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	bulk, err := jetstream.New(config.NATS, jetstream.WithPublishAsyncTimeout(takeWithin), jetstream.WithPublishAsyncMaxPending(maxBulk*bulkWindow))
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	count := func() float64 { return float64(len(config.Functions.List())) }
	metrics, err := newMetrics(config.Registry, config.Version, count)
	if err != nil {
		return nil, err
	}
	answers, functions := responder{config.Log}, directory{config.Functions}
	calls := &caller{
		exchange: &exchange{
			id: ulid.Make().String(), nc: config.NATS, js: js, bulk: bulk, log: config.Log,
			payloads: newPayloads(config), keep: kept(cmp.Or(config.Streams.ResultAge, maxTimeout)),
			waiters: newWaiters(), workers: newWorkers(), stopped: make(chan struct{}),
		},
		responder: answers, directory: functions, metrics: metrics,
	}
	calls.pools = newPools(calls.exchange, functions, config.Jobs, cmp.Or(config.Streams.PoolIdle, queue.DefaultPoolIdle))
	known := &tokens{byID: make(map[string]*token)}
	g := &Gateway{
		caller: calls,
		guard: &guard{
			responder: answers, on: config.Auth, root: sha256.Sum256([]byte(config.RootToken)), rooted: config.RootToken != "",
			tokens: known,
		},
		tokens: &tokenAPI{calls.exchange, answers, known},
		spawns: &spawns{calls, newCallbacks(calls, config.CallbackSecret, config.PrivateCallbacks)},
		dead:   &deadCalls{calls},

		schedules: &schedules{calls},
		deploys:   &deploys{exchange: calls.exchange, responder: answers, directory: functions, blobs: config.Blobs, jobs: config.Jobs, secrets: config.Secrets, volumes: config.Volumes},
		secrets:   &secretAPI{responder: answers, directory: functions, payloads: calls.payloads, store: config.Secrets, jobs: config.Jobs},
		volumes:   &volumeAPI{responder: answers, directory: functions, payloads: calls.payloads, store: config.Volumes},
		images:    &images{responder: answers, directory: functions, payloads: calls.payloads, blobs: config.Blobs, jobs: config.Jobs},
		execs:     &execs{calls.exchange, answers, functions, config.Jobs},
		logs:      &logReader{responder: answers, directory: functions, js: js},
		blobs:     config.Blobs, sweep: newSweep(calls.exchange, config), streams: config.Streams,
	}
	if g.web, err = web.New(web.Config{
		Functions: config.Functions, Gateway: webDoor{g.guard, config.NATS}, Domain: config.WebDomain, Registry: config.Registry, Log: config.Log,
	}); err != nil {
		return nil, err
	}
	mux, err := g.serveMux(config.Version)
	if err != nil {
		return nil, err
	}
	g.handler = g.web.Wrap(crossOrigin(config.Origins, mux))
	return g, nil
}

// Handler is the HTTP API.
func (g *Gateway) Handler() http.Handler { return g.handler }

// Open starts the gateway's work. It does not wait for NATS: /readyz says when calls can be taken. The context bounds
// nothing but Open itself.
func (g *Gateway) Open(ctx context.Context) error {
	for subject, receive := range map[string]nats.MsgHandler{
		queue.AllReplies(g.id): g.receive,
		queue.AllWorkers:       g.receiveHeartbeat,
	} {
		sub, err := g.nc.Subscribe(subject, receive)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		if err := sub.SetPendingLimits(-1, -1); err != nil { // waiting callers bound the replies; dropping one delays a call
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		g.subs = append(g.subs, sub)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.cancel = cancel
	g.done.Go(func() { g.setUp(run) })
	g.done.Go(func() { g.watchReplies(run) })
	g.done.Go(func() { g.buryWorkers(run) })
	g.done.Go(func() { g.measure(run) })
	g.done.Go(func() { starts{g.exchange}.watch(run) })
	return nil
}

// setUp makes the streams and keeps trying until NATS is there.
func (g *Gateway) setUp(ctx context.Context) {
	const most = 5 * time.Second
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, most) {
		err := g.openStores(ctx)
		if err == nil {
			g.exchange.log.Info().Str("gateway", g.id).Msg("streams are ready")
			return
		}
		if ctx.Err() != nil {
			return
		}
		g.exchange.log.Warn().Err(err).Dur("again_in", delay).Msg("set up streams")
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

func (g *Gateway) openStores(run context.Context) error {
	ctx, cancel := context.WithTimeout(run, time.Minute)
	defer cancel()
	if err := queue.Setup(ctx, g.js, g.streams); err != nil {
		return err
	}
	results, err := g.js.Stream(ctx, queue.ResultsStream)
	if err != nil {
		return fmt.Errorf("open %s: %w", queue.ResultsStream, err)
	}
	opened := &stores{results: results}
	for bucket, into := range map[string]*jetstream.KeyValue{
		queue.KeysBucket: &opened.keys, queue.TokensBucket: &opened.tokens, queue.SchedulesBucket: &opened.schedules,
		queue.PoolsBucket: &opened.pools, queue.ToldBucket: &opened.batches,
	} {
		if *into, err = g.js.KeyValue(ctx, bucket); err != nil {
			return fmt.Errorf("open %s: %w", bucket, err)
		}
	}
	past, err := g.js.KeyValue(ctx, queue.DeploysBucket)
	if err != nil {
		return fmt.Errorf("open %s: %w", queue.DeploysBucket, err)
	}
	if g.guard.on {
		if err := g.followTokens(run, opened.tokens); err != nil {
			return err
		}
	}
	opened.deploys = history.History{Bucket: past}
	g.ready.Store(opened)
	if len(g.spawns.callbacks.secret) > 0 {
		g.done.Go(func() {
			if err := g.spawns.callbacks.follow(run); err != nil && run.Err() == nil {
				g.exchange.log.Error().Err(err).Msg("callers are told nothing by this gateway")
			}
		})
		g.done.Go(func() {
			if err := g.spawns.callbacks.followBatches(run, opened.batches); err != nil && run.Err() == nil {
				g.exchange.log.Error().Err(err).Msg("this gateway does not look for the ends of batches")
			}
		})
	}
	g.done.Go(func() { g.sweep.follow(run) })
	g.done.Go(func() { g.deploys.sweepWarmed(run) })
	g.done.Go(func() { g.pools.follow(run, opened.pools) })
	g.done.Go(func() {
		if err := g.schedules.follow(run, opened.schedules); err != nil && run.Err() == nil {
			g.exchange.log.Error().Err(err).Msg("schedules make no calls here")
		}
	})
	return nil
}

// Close answers the requests that still wait (their calls go on) and ends the gateway's work. Stop the HTTP server
// first: a request that comes later is refused. It may be called more than once.
func (g *Gateway) Close(ctx context.Context) error {
	g.stop.Do(func() {
		close(g.stopped)
		if g.cancel != nil {
			g.cancel()
		}
		for _, sub := range g.subs {
			_ = sub.Unsubscribe() // fails only on a closed connection, which has none
		}
		g.web.Close()
	})
	ended := make(chan struct{})
	go func() { g.done.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close gateway: %w", ctx.Err())
	}
}
