package autoscaler

import (
	"context"
	"time"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/news"
	"github.com/freshet-dev/freshet/scheduler-ext/placement"
	"github.com/freshet-dev/freshet/scheduler-ext/policy"
	"github.com/freshet-dev/freshet/scheduler-ext/schedule"
)

// state is what is known of one function while it has calls or workers.
type state struct {
	depth  int64
	demand time.Time // of the last hint
	// waiting is how many requests waited then that never come to the queue.
	waiting int
	ended   int64 // calls, at the last look
	policy  policy.State

	// seen and decision are the last ones, for whoever asks why.
	seen     policy.Observed
	decision policy.Decision

	// floors are the schedules of the job at the index floorsOf.
	floors   schedule.Floors
	floorsOf uint64

	// busy says that Nomad is being asked or told.
	busy bool
	// counts are those that Nomad accepted last or was seen to have, by group, at its index: the watcher may still show older
	// ones.
	counts map[string]int
	index  uint64
	// scaledAt is the job's index of the last scaling; later is the news that came while Nomad was being told.
	scaledAt uint64
	later    *news.Item
	// unsure says that nobody knows yet whether a person set the count; byHand says until when a count stands that a person set.
	unsure bool
	byHand time.Time
	// retryAt and retry pace the attempts after a failure; refused is what Nomad said.
	retryAt time.Time
	retry   time.Duration
	refused string

	// shrink is the taking away of workers that is going on.
	shrink *shrink
	// evaluated is the newest of the job's indexes that Nomad has acted on; wokeAt is when, and wokeFor the index at which, Nomad
	// was last asked which of the resting workers it keeps.
	evaluated uint64
	wokeAt    time.Time
	wokeFor   uint64
	// unplaced are the workers that Nomad has no place for, by group, and why, and housed those that had one when it last said so;
	// full says until when a group counts as full.
	unplaced map[string]int
	housed   int
	missing  string
	full     map[string]fullness

	// quota is what others leave to the function, if limited.
	quota   int
	limited bool
	quotaBy string
}

// fullness is a group without room: how many workers it has, and when to look again.
type fullness struct {
	placed int
	look   time.Time
	pause  time.Duration
}

// countOf is the newer of what was last set and what the watcher saw.
func (s *state) countOf(entry jobs.Entry, group jobs.Group) int {
	if s.index > entry.Index {
		return s.counts[group.Name]
	}
	return group.Count
}

// count is the workers of all groups.
func (s *state) count(entry jobs.Entry) int {
	sum := 0
	for _, group := range entry.Groups {
		sum += s.countOf(entry, group)
	}
	return sum
}

// foreign tells that somebody else changed the counts.
func (s *state) foreign(entry jobs.Entry) bool {
	if s.index == 0 || entry.Index <= s.index {
		return false
	}
	for _, group := range entry.Groups {
		if s.counts[group.Name] != group.Count {
			return true
		}
	}
	return false
}

// adopt takes the counts that the watcher saw.
func (s *state) adopt(entry jobs.Entry) {
	s.counts, s.index = make(map[string]int, len(entry.Groups)), entry.Index
	for _, group := range entry.Groups {
		s.counts[group.Name] = group.Count
	}
	if s.evaluated == 0 { // until Nomad says otherwise
		s.housed = entry.Count
	}
}

// placed takes what an evaluation found no place for.
func (s *state) placed(item news.Item, now time.Time) {
	s.unplaced, s.missing = item.Unplaced, item.Why
	s.evaluated = max(s.evaluated, item.JobIndex)
	s.housed = 0
	for group, count := range s.counts {
		s.housed += max(count-item.Unplaced[group], 0)
	}
	if s.full == nil {
		s.full = make(map[string]fullness)
	}
	for group, count := range item.Unplaced {
		full := s.full[group]
		if !now.Before(full.look) { // more of the same news puts no look off
			full.pause = min(max(2*full.pause, minLook), maxLook)
			full.look = now.Add(full.pause)
		}
		full.placed = max(s.counts[group]-count, 0)
		s.full[group] = full
	}
}

// Pauses between looks whether a group has room again, while workers run elsewhere.
const (
	minLook = 5 * time.Second
	maxLook = time.Minute
)

// groups is the job's groups as the placement sees them.
func (s *state) groups(entry jobs.Entry) []placement.Group {
	groups := make([]placement.Group, len(entry.Groups))
	for i, g := range entry.Groups {
		full, isFull := s.full[g.Name]
		count := s.countOf(entry, g)
		groups[i] = placement.Group{Count: count, Placed: count, Min: g.Min, Max: g.Max}
		if isFull {
			groups[i].Full, groups[i].Placed = true, min(full.placed, count)
		}
	}
	return groups
}

// decide asks the policy and has Nomad told where the count should change.
func (a *scaler) decide(ctx context.Context, function queue.Function, s *state, since time.Time) {
	entry, ok := a.functions.Entry(function)
	if !ok || entry.Err != nil || len(entry.Groups) == 0 {
		return
	}
	if _, acts := a.leader.Lease(); !acts {
		return
	}
	now := time.Now()
	switch {
	case s.busy:
	case s.unsure && entry.Count > 0 || s.foreign(entry):
		s.unsure = false
		a.askWho(ctx, function, s, entry)
	case entry.Index > s.index:
		s.adopt(entry)
	}
	view := a.fleet.View(function)
	ended := max(view.Ended-s.ended, 0)
	s.ended = view.Ended
	depth := s.depth + int64(view.Web)
	if now.Sub(s.demand) < demandHolds {
		depth += int64(s.waiting)
	}
	s.seen = policy.Observed{
		Depth: depth, Demand: now.Sub(s.demand) < demandHolds, Ended: ended, Count: s.count(entry), Ready: view.Ready,
		Concurrency: entry.Spec.Concurrency, Service: view.Service, Start: view.Start, Floor: s.floor(entry, now),
		Quota: s.quota, Limited: s.limited, Failures: view.Failures, Failure: view.Failure, ByHand: s.byHand,
	}
	s.decision, s.policy = policy.Decide(entry.Spec.Scaling, s.seen, s.policy, now)
	if s.busy || now.Before(s.retryAt) {
		return
	}
	a.carryOut(ctx, function, s, entry, since)
}

// carryOut brings Nomad's counts to the decision: first what rises, then what falls.
func (a *scaler) carryOut(ctx context.Context, function queue.Function, s *state, entry jobs.Entry, since time.Time) {
	target := placement.Spread(s.decision.Count, s.groups(entry))
	total := s.seen.Count
	blocked := 0 // rises that would pass the maximum before something falls
	for i, group := range entry.Groups {
		count := s.countOf(entry, group)
		wanted := target[i] - count
		if wanted >= 0 {
			a.rests.callIn(function, s, group.Name)
		}
		if rise := min(wanted, entry.Spec.Scaling.Max-total); rise > 0 {
			reason := s.decision.Reason
			a.start(ctx, function, s, func(ctx context.Context) applied {
				return a.target.scale(ctx, entry, group.Name, count, count+rise, reason)
			}, since)
			return
		}
		blocked += max(wanted, 0)
	}
	surplus := max(total-s.decision.Count, blocked)
	// Workers of another group are to come first; what waits for a place serves nobody and goes at once.
	othersFirst := len(entry.Groups) > 1 && blocked == 0 && s.seen.Ready < s.decision.Count
	for i := len(entry.Groups) - 1; i >= 0 && surplus > 0; i-- {
		group := entry.Groups[i]
		count := s.countOf(entry, group)
		fall := min(count-target[i], surplus)
		if othersFirst {
			fall = min(fall, s.unplaced[group.Name])
		}
		if fall > 0 {
			a.shrinkTo(ctx, function, s, entry, group.Name, count, count-fall)
			return
		}
	}
	if a.wakeKept(ctx, function, s, entry) {
		return
	}
	a.lookForRoom(ctx, function, s, entry, target)
}

// start runs a request to Nomad, one a function at a time. A decision that changed meanwhile is carried out when it ends. since
// is when what it answers to was heard; zero for what is no answer.
func (a *scaler) start(ctx context.Context, function queue.Function, s *state, request func(context.Context) applied, since time.Time) {
	s.busy = true
	a.scaling.Go(func() {
		select {
		case a.slots <- struct{}{}:
			defer func() { <-a.slots }()
		case <-ctx.Done():
			return
		}
		done := request(ctx)
		done.function, done.of = function, s
		if done.err == nil && done.to != done.from && !since.IsZero() {
			a.metrics.reaction(done.to > done.from, time.Since(since))
		}
		select {
		case a.applied <- done:
		case <-ctx.Done():
		}
	})
}
