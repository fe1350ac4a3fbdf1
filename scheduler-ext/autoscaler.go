// Package autoscaler sets the number of workers of each function: it hears demand from the gateways, sees queue depth in NATS,
// asks the policy and tells Nomad. What it knows it can read again from both, so it keeps nothing.
//
// One instance acts at a time; running two wastes work but loses no call.
package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/policy"
)

// Pace of the sweeps that correct what hints tell: all queues' depths in one request.
const (
	// busySweep is used while any function has calls or was asked for, idleSweep otherwise.
	busySweep = 250 * time.Millisecond
	idleSweep = time.Second
	// demandHolds is how long a hint counts while no depth confirms it: publishing follows the hint within milliseconds.
	demandHolds = time.Second
	// sweepTimeout bounds one sweep.
	sweepTimeout = 5 * time.Second
)

// Functions is what the autoscaler needs to know of Nomad's jobs.
type Functions interface {
	Entry(queue.Function) (jobs.Entry, bool)
	List() []jobs.Entry
}

// Config is what an autoscaler is made of; all of it is needed.
type Config struct {
	NATS      *nats.Conn
	Nomad     *api.Client
	Functions Functions
	Registry  *prometheus.Registry
	Log       zerolog.Logger
}

// Autoscaler sets job counts. New makes it, Open starts it, Close ends it.
type Autoscaler struct {
	nc        *nats.Conn
	js        jetstream.JetStream
	nomad     *api.Client
	functions Functions
	registry  *prometheus.Registry
	metrics   *metrics
	log       zerolog.Logger

	hints   chan hint
	applied chan applied
	sub     *nats.Subscription
	cancel  context.CancelFunc
	running sync.WaitGroup

	// states belongs to the loop alone. A function without calls and workers has none.
	states map[queue.Function]*state
}

// hint is a demand, and when it came.
type hint struct {
	function queue.Function
	at       time.Time
}

// hintBuffer holds hints of a burst over many functions; what does not fit is found by the next sweep.
const hintBuffer = 4096

// New makes an autoscaler and starts nothing.
func New(config Config) (*Autoscaler, error) {
	js, err := jetstream.New(config.NATS)
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	metrics, err := newMetrics(config.Registry)
	if err != nil {
		return nil, err
	}
	return &Autoscaler{
		nc: config.NATS, js: js, nomad: config.Nomad, functions: config.Functions,
		registry: config.Registry, metrics: metrics, log: config.Log,
		hints: make(chan hint, hintBuffer), applied: make(chan applied), states: make(map[queue.Function]*state),
	}, nil
}

// Open starts the work. It does not wait for Nomad or NATS. Close it.
func (a *Autoscaler) Open(ctx context.Context) error {
	sub, err := a.nc.Subscribe(queue.AllDemand, a.hear)
	if err != nil {
		return fmt.Errorf("subscribe to demand: %w", err)
	}
	a.sub = sub
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	a.running.Go(func() { a.loop(ctx) })
	return nil
}

// Close ends the work and waits for it.
func (a *Autoscaler) Close() {
	_ = a.sub.Unsubscribe() // fails only on a closed connection
	a.cancel()
	a.running.Wait()
}

// Handler serves /healthz and /metrics.
func (a *Autoscaler) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n")) // a client that left does not care
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	return mux
}

func (a *Autoscaler) hear(msg *nats.Msg) {
	function, ok := queue.ParseFunction(msg.Subject)
	if !ok {
		return
	}
	select {
	case a.hints <- hint{function, time.Now()}:
	default: // the next sweep finds its calls
	}
}

func (a *Autoscaler) loop(ctx context.Context) {
	var scaling sync.WaitGroup // the scalings in progress
	defer scaling.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-a.hints:
			a.demand(ctx, &scaling, h)
		case done := <-a.applied:
			a.settle(done)
		case <-timer.C:
			timer.Reset(a.sweep(ctx, &scaling))
		}
	}
}

// demand acts on a hint at once: the sweep's depth may be old.
func (a *Autoscaler) demand(ctx context.Context, scaling *sync.WaitGroup, h hint) {
	s := a.state(h.function)
	s.demand = h.at
	a.decide(ctx, scaling, h.function, s, h.at)
}

// sweep reads all queues' depths and decides for every function that has calls or workers. It returns when to sweep again.
func (a *Autoscaler) sweep(ctx context.Context, scaling *sync.WaitGroup) time.Duration {
	reading, cancel := context.WithTimeout(ctx, sweepTimeout)
	depths, err := queue.Depths(reading, a.js)
	cancel()
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, nats.ErrNoResponders) {
			a.log.Warn().Err(err).Msg("read queue depths")
		}
		return idleSweep // without depths, nothing is scaled: a failure is no backlog and no idleness
	}
	for function, depth := range depths {
		a.state(function).depth = depth
	}
	for _, entry := range a.functions.List() {
		if entry.Count > 0 || entry.Spec.Scaling.Min > 0 {
			a.state(entry.Key())
		}
	}
	next := idleSweep
	now := time.Now()
	for function, s := range a.states {
		s.depth = depths[function]
		if s.depth > 0 || now.Sub(s.demand) < demandHolds {
			next = busySweep
		}
		a.decide(ctx, scaling, function, s, now)
		if a.forgettable(function, s) {
			delete(a.states, function)
		}
	}
	return next
}

func (a *Autoscaler) state(function queue.Function) *state {
	s, ok := a.states[function]
	if !ok {
		s = &state{}
		a.states[function] = s
	}
	return s
}

// forgettable tells that nothing would be lost with the state.
func (a *Autoscaler) forgettable(function queue.Function, s *state) bool {
	entry, known := a.functions.Entry(function)
	return !s.busy && s.depth == 0 && time.Since(s.demand) > demandHolds && time.Now().After(s.retryAt) &&
		(!known || s.count(entry) == 0 && entry.Spec.Scaling.Min == 0)
}

// decide asks the policy and has Nomad told where the count should change.
func (a *Autoscaler) decide(ctx context.Context, scaling *sync.WaitGroup, function queue.Function, s *state, since time.Time) {
	entry, ok := a.functions.Entry(function)
	if !ok || entry.Err != nil {
		return
	}
	now := time.Now()
	count := s.count(entry)
	seen := policy.Observed{Depth: s.depth, Demand: now.Sub(s.demand) < demandHolds, Count: count}
	var decision policy.Decision
	decision, s.policy = policy.Decide(entry.Spec.Scaling, seen, s.policy, now)
	if decision.Count == count || s.busy || now.Before(s.retryAt) {
		return
	}
	s.busy = true
	scaling.Go(func() {
		done := a.apply(ctx, entry, decision)
		a.metrics.reaction(decision.Count > count, time.Since(since))
		select {
		case a.applied <- done:
		case <-ctx.Done():
		}
	})
}
