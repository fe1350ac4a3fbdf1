package policy_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/scheduler-ext/policy"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func anySeen(t *rapid.T, count int, most int64) policy.Observed {
	seen := policy.Observed{
		Depth: rapid.Int64Range(0, most).Draw(t, "depth"), Demand: rapid.Bool().Draw(t, "demand"), Count: count,
		Ready: rapid.IntRange(0, count).Draw(t, "ready"), Concurrency: rapid.IntRange(1, 20).Draw(t, "concurrency"),
		Service: time.Duration(rapid.IntRange(0, 60_000).Draw(t, "service")) * time.Millisecond,
		Start:   time.Duration(rapid.IntRange(0, 60_000).Draw(t, "start")) * time.Millisecond,
		Floor:   rapid.IntRange(0, 60).Draw(t, "floor"), Failures: rapid.IntRange(0, 6).Draw(t, "failures"),
	}
	if rapid.Bool().Draw(t, "limited") {
		seen.Limited, seen.Quota = true, rapid.IntRange(0, 60).Draw(t, "quota")
	}
	return seen
}

func anyPolicy(t *rapid.T) spec.Scaling {
	s := anyScaling(t)
	s.ZeroWindow = spec.Duration(rapid.IntRange(1, 200).Draw(t, "zero window")) * spec.Duration(time.Second)
	s.BacklogTarget = spec.Duration(rapid.IntRange(0, 60).Draw(t, "backlog target")) * spec.Duration(time.Second)
	s.StartsPerMinute = rapid.IntRange(0, 20).Draw(t, "starts per minute")
	s.PredictPeriod = rapid.SampledFrom([]spec.Duration{0, spec.MinPredictPeriod}).Draw(t, "period")
	return s
}

// TestWhateverIsSeenTheLimitsHold: any policy, any observations, at any pace.
func TestWhateverIsSeenTheLimitsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now, count, state := anyPolicy(t), time.Unix(0, 0), 0, policy.State{}
		count = rapid.IntRange(0, s.Max).Draw(t, "count")
		type rise struct {
			at time.Time
			by int
		}
		var rises []rise
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "ms")) * time.Millisecond)
			seen := anySeen(t, count, 2000)
			before := state
			decision, after := policy.Decide(s, seen, state, now)
			again, _ := policy.Decide(s, seen, before, now)
			if !reflect.DeepEqual(decision, again) {
				t.Fatalf("the same observations made %+v and then %+v", decision, again)
			}
			state = after
			most := s.Max
			if seen.Limited {
				most = max(min(most, seen.Quota), s.Min)
			}
			if decision.Count > max(most, s.Min) || decision.Count < min(s.Min, count) {
				t.Fatalf("%d workers outside %d to %d", decision.Count, s.Min, most)
			}
			if seen.Failures >= 2 && decision.Count > max(count, seen.Ready+1) {
				t.Fatalf("from %d to %d workers while starts fail and %d are ready", count, decision.Count, seen.Ready)
			}
			if decision.Count > count {
				rises = append(rises, rise{now, decision.Count - count})
			}
			started := 0
			for _, r := range rises {
				if r.at.After(now.Add(-time.Minute)) {
					started += r.by
				}
			}
			if s.StartsPerMinute > 0 && started > s.StartsPerMinute {
				t.Fatalf("%d starts within a minute, want at most %d", started, s.StartsPerMinute)
			}
			if decision.Count != count && decision.Reason == "" {
				t.Fatal("a change without a reason")
			}
			count = decision.Count
		}
	})
}

// world is workers that start in a fixed time and serve calls in a fixed time, one each, and a queue.
type world struct {
	scaling        spec.Scaling
	start, service time.Duration
	now            time.Time
	ready          []time.Time // when each worker is
	free           []time.Time // when each has ended its call
	waiting        int
	state          policy.State
}

func (w *world) step(by time.Duration) policy.Decision {
	running, ready := 0, 0
	for i := range w.ready {
		if w.ready[i].After(w.now) {
			continue
		}
		ready++
		if !w.free[i].After(w.now) && w.waiting > 0 {
			w.waiting--
			w.free[i] = w.now.Add(w.service)
		}
		if w.free[i].After(w.now) {
			running++
		}
	}
	decision, state := policy.Decide(w.scaling, policy.Observed{
		Depth: int64(w.waiting + running), Count: len(w.ready), Ready: ready, Concurrency: 1, Service: w.service, Start: w.start,
	}, w.state, w.now)
	w.state = state
	for len(w.ready) < decision.Count {
		w.ready, w.free = append(w.ready, w.now.Add(w.start)), append(w.free, time.Time{})
	}
	w.ready, w.free = w.ready[:decision.Count], w.free[:decision.Count]
	w.now = w.now.Add(by)
	return decision
}

// tick is how often the policy is asked, and what the world's times are multiples of.
const tick = 50 * time.Millisecond

// TestABacklogIsDoneInTime: with enough workers allowed, the calls are done within the target, or within a start and two calls
// where that is longer; and never with more workers than calls.
func TestABacklogIsDoneInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world{
			scaling: spec.Scaling{
				Max: spec.MaxScale, TargetInflight: 1, ScaledownWindow: spec.Duration(time.Hour), ZeroWindow: spec.Duration(time.Hour),
				BacklogTarget: spec.Duration(rapid.IntRange(1, 120).Draw(t, "target")) * spec.Duration(time.Second),
			},
			start:   time.Duration(rapid.IntRange(0, 400).Draw(t, "start")) * tick,
			service: time.Duration(rapid.IntRange(2, 400).Draw(t, "service")) * tick,
			now:     time.Unix(1000, 0), waiting: rapid.IntRange(1, 300).Draw(t, "calls"),
		}
		calls, limit := w.waiting, max(w.scaling.BacklogTarget.Std(), w.start+2*w.service)
		begin, most := w.now, 0
		for busy := true; busy; {
			most = max(most, w.step(tick).Count)
			busy = w.waiting > 0
			for _, free := range w.free {
				busy = busy || free.After(w.now)
			}
			if took := w.now.Sub(begin); took > limit+2*tick {
				t.Fatalf("%d of %d calls wait after %s, want all done in %s; %d workers", w.waiting, calls, took, limit, len(w.ready))
			}
		}
		if most > calls {
			t.Fatalf("%d workers for %d calls", most, calls)
		}
	})
}

func TestABacklogTargetNeedsFewerWorkers(t *testing.T) {
	s := scaling()
	s.Max, s.TargetInflight, s.BacklogTarget = 1000, 1, spec.Duration(20*time.Second)
	seen := policy.Observed{Depth: 200, Concurrency: 1, Service: time.Second, Start: 10 * time.Second}
	decision, _ := policy.Decide(s, seen, policy.State{}, time.Unix(1000, 0))
	if decision.Count != 20 { // each has 10 s left for 10 calls
		t.Errorf("%d workers (%s), want 20", decision.Count, decision.Reason)
	}
	seen.Service = 0
	if decision, _ := policy.Decide(s, seen, policy.State{}, time.Unix(1000, 0)); decision.Count != 200 {
		t.Errorf("%d workers while no call was measured, want one each", decision.Count)
	}
}

func TestFailingStartsLeaveOneWorkerToTry(t *testing.T) {
	s, now := scaling(), time.Unix(1000, 0)
	for _, test := range []struct{ count, ready, failures, want int }{
		{0, 0, 1, 10}, {0, 0, 2, 1}, {3, 0, 3, 3}, {3, 0, 4, 1}, {3, 2, 9, 3}, {3, 3, 2, 4}, {1, 0, 50, 1},
	} {
		seen := policy.Observed{Depth: 1000, Count: test.count, Ready: test.ready, Failures: test.failures, Failure: "no such module"}
		decision, _ := policy.Decide(s, seen, policy.State{}, now)
		if decision.Count != test.want {
			t.Errorf("%+v: %d workers", test, decision.Count)
		}
		if test.failures > 1 && test.want < 10 && test.want != test.count && !strings.Contains(strings.Join(decision.Held, ";"), "no such module") {
			t.Errorf("%+v: nobody is told why: %q", test, decision.Held)
		}
	}
}

func TestACountSetByHandStandsForItsTime(t *testing.T) {
	s, now, state := scaling(), time.Unix(1000, 0), policy.State{}
	until := now.Add(time.Minute)
	var decision policy.Decision
	for ; now.Before(until); now = now.Add(time.Second) {
		if decision, state = policy.Decide(s, policy.Observed{Depth: 30, Count: 3, ByHand: until}, state, now); decision.Count != 3 {
			t.Fatalf("%d workers, want the 3 that a person asked for", decision.Count)
		}
	}
	if decision, _ = policy.Decide(s, policy.Observed{Depth: 30, Count: 3, ByHand: until}, state, now); decision.Count != 8 {
		t.Fatalf("%d workers afterwards, want 8", decision.Count)
	}
}

func TestTheLastWorkerHasItsOwnWindow(t *testing.T) {
	s, now, state, count := scaling(), time.Unix(1000, 0), policy.State{}, 0
	s.ZeroWindow = spec.Duration(5 * window)
	for _, step := range []step{{0, 20, false, 5}, {time.Second, 0, false, 5}, {window, 0, false, 1}, {4*window - time.Second, 0, false, 1}, {time.Second, 0, false, 0}} {
		now = now.Add(step.after)
		var decision policy.Decision
		decision, state = policy.Decide(s, policy.Observed{Depth: step.depth, Count: count}, state, now)
		if count = decision.Count; count != step.want {
			t.Fatalf("%d workers at %s, want %d", count, now.Sub(time.Unix(1000, 0)), step.want)
		}
	}
}

// TestPeriodicLoadFindsItsWorkersReady: a load of ten minutes an hour; in the third hour the workers stand before it comes.
func TestPeriodicLoadFindsItsWorkersReady(t *testing.T) {
	s := scaling()
	s.PredictPeriod, s.ZeroWindow = spec.Duration(time.Hour), s.ScaledownWindow
	count, state := 0, policy.State{}
	begin := time.Unix(0, 0)
	ahead := time.Duration(-1)
	for now := begin; now.Before(begin.Add(3 * time.Hour)); now = now.Add(time.Second) {
		depth := int64(0)
		if since := now.Sub(begin) % time.Hour; since >= 30*time.Minute && since < 40*time.Minute {
			depth = 20
		}
		if odd := now.Sub(begin); odd > 10*time.Minute && odd < 12*time.Minute {
			depth = 40 // once only
		}
		var decision policy.Decision
		decision, state = policy.Decide(s, policy.Observed{Depth: depth, Count: count, Start: 20 * time.Second}, state, now)
		if decision.Count < s.Min || now.Sub(begin) > 2*time.Hour+11*time.Minute && now.Sub(begin) < 2*time.Hour+29*time.Minute && decision.Count > 0 {
			t.Fatalf("%d workers at %s for what came once", decision.Count, now.Sub(begin))
		}
		if now.After(begin.Add(2*time.Hour)) && ahead < 0 && decision.Count == 5 {
			ahead = begin.Add(2*time.Hour + 30*time.Minute).Sub(now)
		}
		count = decision.Count
	}
	if ahead < 20*time.Second || ahead > 40*time.Second {
		t.Errorf("workers stood %s before the load, want the 20 s of a start and at most one part of the period more", ahead)
	}
}
