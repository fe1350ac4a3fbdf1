package autoscaler

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/news"
	"github.com/freshet-dev/freshet/scheduler-ext/schedule"
)

// Pace of the sweeps that correct what hints tell.
const (
	// busySweep is used while any function has calls, was asked for, or is about to lose workers; idleSweep otherwise.
	busySweep = 250 * time.Millisecond
	idleSweep = time.Second
	// hintedSweep is how long after the first hint the depths are read: a burst is published by then.
	hintedSweep = 50 * time.Millisecond
	// demandHolds is how long a hint counts while no depth confirms it: publishing follows the hint within milliseconds.
	demandHolds = time.Second
	// sweepTimeout bounds one sweep.
	sweepTimeout = 5 * time.Second
)

// demand acts on a hint at once: the sweep's depth may be old.
func (a *scaler) demand(ctx context.Context, h hint) {
	if _, acts := a.leader.Lease(); !acts {
		return
	}
	s := a.state(h.function)
	s.demand, s.waiting = h.at, h.waiting
	a.decide(ctx, h.function, s, h.at)
}

// heard takes a heartbeat. One of a worker that may be about to go is acted on at once.
func (a *scaler) heard(ctx context.Context, beat queue.Heartbeat) {
	now := time.Now()
	a.fleet.Hear(beat, now)
	function := beat.Key()
	s, ok := a.states[function]
	if !ok || s.shrink == nil {
		return
	}
	if v, resting := s.shrink.victims[beat.Alloc]; resting && !v.settled && a.rests.settled(function, beat.Alloc, v, now) {
		a.decide(ctx, function, s, now)
	}
}

// learn takes news of Nomad.
func (a *scaler) learn(ctx context.Context, item news.Item) {
	if entry, known := a.functions.Entry(item.Function); !known || entry.Job != item.Job {
		return
	}
	if item.Alloc != "" {
		a.fleet.Failed(item.Function, item.Alloc, item.Failed)
	}
	s, ok := a.states[item.Function]
	if !ok || !item.Evaluated || item.JobIndex < s.scaledAt {
		return
	}
	if s.busy { // the count that it speaks of is not known yet
		s.later = &item
		return
	}
	s.placed(item, time.Now())
	a.decide(ctx, item.Function, s, time.Now())
}

// changed takes a new or changed job: one that wants workers without calls is kept in sight.
func (a *scaler) changed(ctx context.Context, function queue.Function) {
	entry, known := a.functions.Entry(function)
	if !known {
		delete(a.awake, function)
		delete(a.states, function)
		a.fleet.Forget(function)
		a.policyReported(function, nil)
		return
	}
	a.policyReported(function, cmp.Or(entry.Policy, entry.Err))
	scaling := entry.Spec.Scaling
	if entry.Count > 0 || scaling.Min > 0 || len(scaling.Schedules) > 0 || scaling.PredictPeriod > 0 {
		a.awake[function] = struct{}{}
	} else {
		delete(a.awake, function)
	}
	if s, ok := a.states[function]; ok {
		a.decide(ctx, function, s, time.Now())
	}
}

// sweep reads all queues' depths and decides for every function that has calls or workers. It returns when to sweep again.
func (a *scaler) sweep(ctx context.Context) time.Duration {
	lease, acts := a.leader.Lease()
	if !acts {
		return idleSweep
	}
	depths, err := readDepths(ctx, a)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, nats.ErrNoResponders) {
			a.log.Warn().Err(err).Msg("read queue depths")
		}
		return idleSweep // without depths, nothing is scaled: a failure is no backlog and no idleness
	}
	now := time.Now()
	if a.nc.IsConnected() { // without a connection nobody is heard, which says nothing about them
		a.fleet.Bury(now.Add(-queue.DeadAfter))
	}
	for function := range depths {
		a.state(function)
	}
	for function := range a.awake {
		if _, known := a.states[function]; !known { // as after a take-over
			a.state(function).unsure = true
		}
	}
	for function, s := range a.states {
		s.depth = depths[function]
	}
	if a.recall {
		a.recall = false
		a.scaling.Go(func() { a.readBlocked(ctx, lease.Index) })
	}
	a.share(ctx, now)
	next := idleSweep
	for function, s := range a.states {
		if s.depth > 0 || now.Sub(s.demand) < demandHolds || s.shrink != nil || a.fleet.View(function).Web > 0 {
			next = busySweep
		}
		a.decide(ctx, function, s, now)
		if a.forgettable(function, s) {
			delete(a.states, function)
		}
	}
	return next
}

// fewStates is for how many functions their own queues alone are read.
const fewStates = 8

// readDepths reads the queues' depths: every idleSweep of all, which finds functions whose hints nobody heard, and between only of those
// that are known to have calls or workers.
func readDepths(ctx context.Context, a *scaler) (map[queue.Function]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	now := time.Now()
	if len(a.states) <= fewStates && now.Sub(a.readAll) < idleSweep {
		return queue.DepthsOf(ctx, a.js, maps.Keys(a.states))
	}
	depths, err := queue.Depths(ctx, a.js)
	if err == nil {
		a.readAll = now
	}
	return depths, err
}

// recalled is what had no place before this instance acted, read under a lease.
type recalled struct {
	lease uint64
	items []news.Item
	err   error
}

// readBlocked reads it and hands it to the loop.
func (a *scaler) readBlocked(ctx context.Context, lease uint64) {
	reading, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	before := recalled{lease: lease}
	before.items, before.err = news.Blocked(reading, a.target.nomad)
	select {
	case a.recalled <- before:
	case <-ctx.Done():
	}
}

// take learns what had no place before; what could not be read is read again with the next sweep.
func (a *scaler) take(ctx context.Context, before recalled) {
	if lease, acts := a.leader.Lease(); !acts || lease.Index != before.lease {
		return
	}
	if before.err != nil {
		a.log.Warn().Err(before.err).Msg("read what has no place")
		a.recall = true
		return
	}
	for _, item := range before.items {
		if s, ok := a.states[item.Function]; ok && s.evaluated == 0 && s.later == nil { // else newer news came first
			a.learn(ctx, item)
		}
	}
	a.knows = true
}

func (a *scaler) state(function queue.Function) *state {
	s, ok := a.states[function]
	if !ok {
		s = &state{}
		a.states[function] = s
	}
	return s
}

// forgettable tells that nothing would be lost with the state.
func (a *scaler) forgettable(function queue.Function, s *state) bool {
	if _, awake := a.awake[function]; awake {
		return false
	}
	entry, known := a.functions.Entry(function)
	return !s.busy && s.depth == 0 && time.Since(s.demand) > demandHolds && time.Now().After(s.retryAt) &&
		(!known || s.count(entry) == 0)
}

// floor is what the function's schedules ask for now.
func (s *state) floor(entry jobs.Entry, now time.Time) int {
	if s.floorsOf != entry.Index {
		s.floors, s.floorsOf = schedule.Floors{}, entry.Index
		if floors, err := schedule.Read(entry.Spec.Scaling.Schedules); err == nil { // a job whose schedules are wrong has a Policy error
			s.floors = floors
		}
	}
	return s.floors.At(now)
}
