// Package autoscaler sets the number of workers of each function: it hears demand from the gateways, sees queue depth in NATS and
// workers by their heartbeats, asks the policy and tells Nomad. What it knows it can read again from both, so it keeps nothing.
//
// One instance acts at a time, the one that has the lease (package leader); the others stand by.
package autoscaler

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/fleet"
	"github.com/freshet-dev/freshet/scheduler-ext/leader"
	"github.com/freshet-dev/freshet/scheduler-ext/news"
	"github.com/freshet-dev/freshet/scheduler-ext/quota"
)

// Functions is what the autoscaler needs to know of Nomad's jobs.
type Functions interface {
	Entry(queue.Function) (jobs.Entry, bool)
	List() []jobs.Entry
	OnChange(func(queue.Function))
}

// Leader tells whether this instance may act.
type Leader interface {
	Lease() (leader.Lease, bool)
	Changed() <-chan struct{}
}

// Config is what an autoscaler is made of; all of it is needed.
type Config struct {
	NATS      *nats.Conn
	Nomad     *api.Client
	Functions Functions
	Leader    Leader
	Registry  *prometheus.Registry
	Log       zerolog.Logger
}

// Autoscaler sets job counts. New makes it, Open starts it, Close ends it.
type Autoscaler struct {
	nc       *nats.Conn
	nomad    *api.Client
	registry *prometheus.Registry
	log      zerolog.Logger
	scaler   *scaler

	subs    []*nats.Subscription
	reader  *news.Reader
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// scaler is the one goroutine that knows and decides, and what it knows.
type scaler struct {
	nc        *nats.Conn
	js        jetstream.JetStream
	functions Functions
	leader    Leader
	metrics   *metrics
	log       zerolog.Logger
	target    *target
	rests     *rests

	// What comes in.
	hints   chan hint
	beats   chan queue.Heartbeat
	news    chan news.Item
	applied chan applied
	asked   chan question
	counted chan chan<- struct{}
	changes *changes
	limits  chan quota.Limits

	// slots bounds the requests to Nomad at one time, scaling waits for those in progress.
	slots   chan struct{}
	scaling sync.WaitGroup
	// states has one for each function that has calls or workers, awake names those that need one without calls.
	states map[queue.Function]*state
	awake  map[queue.Function]struct{}
	fleet  *fleet.Fleet
	// readAll is when all queues' depths were last read.
	readAll time.Time
	// recall says that what has no place since before this instance acted is still to be read, recalled hands it over, and knows that it
	// came.
	recall   bool
	recalled chan recalled
	knows    bool
	// wrong is what was reported of functions whose jobs are wrong.
	wrong map[queue.Function]string
	// sharing divides what functions share; limited is when its limits were last read.
	sharing *quota.Sharing
	limited time.Time
}

// hint is a demand, and when it came.
type hint struct {
	function queue.Function
	at       time.Time
	// waiting is how many requests wait in a gateway that never come to the queue.
	waiting int
}

// Buffers of what comes in: hints and heartbeats of a burst over many functions. What does not fit is found by the next sweep.
const (
	hintBuffer = 4096
	beatBuffer = 16384
	newsBuffer = 4096
)

// maxRequests bounds the requests to Nomad at one time: it does some hundred scalings a second, and more at once only wait there.
const maxRequests = 32

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
	crew := fleet.New()
	return &Autoscaler{
		nc: config.NATS, nomad: config.Nomad, registry: config.Registry, log: config.Log,
		scaler: &scaler{
			nc: config.NATS, js: js, functions: config.Functions, leader: config.Leader, metrics: metrics, log: config.Log,
			target: &target{nomad: config.Nomad, leader: config.Leader, log: config.Log},
			rests:  &rests{nc: config.NATS, leader: config.Leader, fleet: crew, log: config.Log},
			hints:  make(chan hint, hintBuffer), beats: make(chan queue.Heartbeat, beatBuffer), news: make(chan news.Item, newsBuffer),
			applied: make(chan applied), asked: make(chan question), counted: make(chan chan<- struct{}),
			recalled: make(chan recalled), changes: newChanges(), limits: make(chan quota.Limits),
			slots: make(chan struct{}, maxRequests), states: make(map[queue.Function]*state),
			awake: make(map[queue.Function]struct{}), fleet: crew, wrong: make(map[queue.Function]string), sharing: quota.New(),
		},
	}, nil
}

// Open starts the work. It does not wait for Nomad, NATS or the lease. Close it.
func (a *Autoscaler) Open(ctx context.Context) error {
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for subject, hear := range map[string]nats.MsgHandler{
		queue.AllDemand: a.hearDemand, queue.AllWorkers: a.hearWorker,
		queue.AllWhy: func(msg *nats.Msg) { a.hearWhy(ctx, msg) },
	} {
		sub, err := a.nc.Subscribe(subject, hear)
		if err != nil {
			a.unsubscribe()
			a.cancel()
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		a.subs = append(a.subs, sub)
	}
	a.scaler.functions.OnChange(a.scaler.changes.note)
	a.reader = news.Open(ctx, a.nomad, a.hearNews, a.log)
	a.running.Go(func() { a.scaler.loop(ctx) })
	return nil
}

func (a *Autoscaler) unsubscribe() {
	for _, sub := range a.subs {
		_ = sub.Unsubscribe() // fails only on a closed connection
	}
}

// Close ends the work and waits for it.
func (a *Autoscaler) Close() {
	a.unsubscribe()
	a.cancel()
	a.reader.Close()
	a.running.Wait()
}

func (a *Autoscaler) hearDemand(msg *nats.Msg) {
	function, ok := queue.ParseFunction(msg.Subject)
	if !ok {
		return
	}
	select {
	case a.scaler.hints <- hint{function, time.Now(), queue.ParseDemand(msg.Data)}:
	default: // the next sweep finds its calls
	}
}

func (a *Autoscaler) hearWorker(msg *nats.Msg) {
	beat, err := queue.ParseHeartbeat(msg.Data)
	if err != nil {
		a.log.Warn().Err(err).Str("subject", msg.Subject).Msg("drop a heartbeat")
		return
	}
	select {
	case a.scaler.beats <- beat:
	default: // the worker's next one says the same
	}
}

func (a *Autoscaler) hearNews(item news.Item) {
	select {
	case a.scaler.news <- item:
	default: // it is for people and for fallbacks, which the next evaluation brings on
	}
}

// loop runs until the context ends.
func (a *scaler) loop(ctx context.Context) {
	defer a.scaling.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now() // when it fires
	sweepIn := func(pause time.Duration) {
		next = time.Now().Add(pause)
		timer.Reset(pause)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-a.hints:
			a.demand(ctx, h)
			if time.Until(next) > busySweep { // nobody had calls until now: how many come with this one?
				sweepIn(hintedSweep)
			}
		case beat := <-a.beats:
			a.heard(ctx, beat)
		case item := <-a.news:
			a.learn(ctx, item)
		case done := <-a.applied:
			a.settle(ctx, done)
		case <-a.changes.signal:
			for _, function := range a.changes.take() {
				a.changed(ctx, function)
			}
		case limits := <-a.limits:
			a.sharing.Limit(limits)
		case <-a.leader.Changed():
			a.succeed(ctx)
			sweepIn(0)
		case q := <-a.asked:
			q.answer <- a.why(q.function)
		case before := <-a.recalled:
			a.take(ctx, before)
		case done := <-a.counted:
			a.reportCapacity()
			close(done)
		case <-timer.C:
			sweepIn(a.sweep(ctx))
		}
	}
}

// succeed begins anew when this instance got the lease, and forgets when it lost it: another one acts meanwhile.
func (a *scaler) succeed(ctx context.Context) {
	clear(a.states)
	clear(a.awake)
	clear(a.wrong)
	_, acts := a.leader.Lease()
	a.metrics.acts(acts)
	a.recall, a.knows = acts, false
	if !acts {
		return
	}
	for _, entry := range a.functions.List() {
		a.changed(ctx, entry.Key())
	}
}

// changes are the functions whose jobs changed since the loop last looked.
type changes struct {
	signal chan struct{}
	mu     sync.Mutex
	noted  map[queue.Function]struct{}
}

func newChanges() *changes {
	return &changes{signal: make(chan struct{}, 1), noted: make(map[queue.Function]struct{})}
}

func (c *changes) note(function queue.Function) {
	c.mu.Lock()
	c.noted[function] = struct{}{}
	c.mu.Unlock()
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

func (c *changes) take() []queue.Function {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]queue.Function, 0, len(c.noted))
	for function := range c.noted {
		list = append(list, function)
	}
	clear(c.noted)
	return list
}
