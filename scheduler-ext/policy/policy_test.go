package policy_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/scheduler-ext/policy"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const window = 10 * time.Second

func scaling() spec.Scaling {
	return spec.Scaling{Min: 0, Max: 10, TargetInflight: 4, ScaledownWindow: spec.Duration(window)}
}

// step is one observation and the count that should follow.
type step struct {
	after  time.Duration
	depth  int64
	demand bool
	want   int
}

func TestDecide(t *testing.T) {
	buffered := scaling()
	buffered.Buffer = 2
	atLeast := scaling()
	atLeast.Min = 3
	for name, test := range map[string]struct {
		scaling spec.Scaling
		steps   []step
	}{
		"from zero on a hint":           {scaling(), []step{{0, 0, true, 1}}},
		"up with depth":                 {scaling(), []step{{0, 1, false, 1}, {0, 4, false, 1}, {0, 5, false, 2}, {0, 39, false, 10}}},
		"never above max":               {scaling(), []step{{0, 1000, false, 10}}},
		"min without calls":             {atLeast, []step{{0, 0, false, 3}, {time.Hour, 0, false, 3}}},
		"buffer while there is need":    {buffered, []step{{0, 0, false, 0}, {0, 1, false, 3}, {time.Second, 0, false, 3}, {window, 0, false, 0}}},
		"zero after the window":         {scaling(), []step{{0, 4, false, 1}, {time.Second, 0, false, 1}, {window - 1, 0, false, 1}, {1, 0, false, 0}}},
		"a short dip takes none":        {scaling(), []step{{0, 20, false, 5}, {time.Second, 0, false, 5}, {time.Second, 20, false, 5}, {window - 1, 0, false, 5}}},
		"down to the window's highest":  {scaling(), []step{{0, 20, false, 5}, {time.Second, 8, false, 5}, {window, 4, false, 2}}},
		"a call in the window keeps it": {scaling(), []step{{0, 1, false, 1}, {window - 1, 1, false, 1}, {window - 1, 0, false, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			now, count, state := time.Unix(1000, 0), 0, policy.State{}
			for i, s := range test.steps {
				now = now.Add(s.after)
				var decision policy.Decision
				decision, state = policy.Decide(test.scaling, policy.Observed{Depth: s.depth, Demand: s.demand, Count: count}, state, now)
				if decision.Count != s.want {
					t.Fatalf("step %d: %d workers (%s), want %d", i, decision.Count, decision.Reason, s.want)
				}
				count = decision.Count
			}
		})
	}
}

func TestWorkersMetAtTheStartGetAWholeWindow(t *testing.T) {
	now := time.Unix(1000, 0)
	decision, state := policy.Decide(scaling(), policy.Observed{Count: 4}, policy.State{}, now)
	if decision.Count != 4 {
		t.Fatalf("%d workers at the start, want the 4 that there were", decision.Count)
	}
	decision, _ = policy.Decide(scaling(), policy.Observed{Count: 4}, state, now.Add(window))
	if decision.Count != 0 {
		t.Fatalf("%d workers after the window, want 0", decision.Count)
	}
}

func anyScaling(t *rapid.T) spec.Scaling {
	most := rapid.IntRange(1, 50).Draw(t, "max")
	return spec.Scaling{
		Max: most, Min: rapid.IntRange(0, most).Draw(t, "min"),
		TargetInflight: rapid.IntRange(1, 20).Draw(t, "target"), Buffer: rapid.IntRange(0, 3).Draw(t, "buffer"),
		ScaledownWindow: spec.Duration(rapid.IntRange(1, 100).Draw(t, "window")) * spec.Duration(time.Second),
	}
}

func TestAlwaysWithinBoundsAndNeverZeroWithCalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now, count, state := anyScaling(t), time.Unix(0, 0), 0, policy.State{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "ms")) * time.Millisecond)
			seen := policy.Observed{Depth: rapid.Int64Range(0, 2000).Draw(t, "depth"), Demand: rapid.Bool().Draw(t, "demand"), Count: count}
			var decision policy.Decision
			decision, state = policy.Decide(s, seen, state, now)
			count = decision.Count
			if count < s.Min || count > s.Max {
				t.Fatalf("%d workers outside %d to %d", count, s.Min, s.Max)
			}
			if (seen.Depth > 0 || seen.Demand) && count == 0 {
				t.Fatal("no worker for calls that wait")
			}
		}
	})
}

func TestSteadyLoadDoesNotOscillate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now, count, state := anyScaling(t), time.Unix(0, 0), 0, policy.State{}
		base := rapid.Int64Range(0, 500).Draw(t, "base")
		noise := rapid.Int64Range(0, 20).Draw(t, "noise")
		downs := 0
		for range 200 {
			now = now.Add(s.ScaledownWindow.Std() / 10)
			var decision policy.Decision
			decision, state = policy.Decide(s, policy.Observed{Depth: base + rapid.Int64Range(0, noise).Draw(t, "noise"), Count: count}, state, now)
			if decision.Count < count {
				downs++
			}
			count = decision.Count
		}
		// Noise within a window may move the count by its own size, never from window to window by more.
		if spread := int(noise)/max(s.TargetInflight, 1) + 1; downs > 200/10*spread {
			t.Fatalf("%d times down under a steady load", downs)
		}
	})
}

func TestIdleReachesItsMinimum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now, state := anyScaling(t), time.Unix(0, 0), policy.State{}
		count := rapid.IntRange(0, s.Max).Draw(t, "count")
		for range 25 {
			var decision policy.Decision
			decision, state = policy.Decide(s, policy.Observed{Count: count}, state, now)
			count = decision.Count
			now = now.Add(s.ScaledownWindow.Std() / 10)
		}
		if count != s.Min {
			t.Fatalf("%d workers after an idle window, want %d", count, s.Min)
		}
	})
}

// TestCallsTooShortToBeSeenKeepTheirWorker: one that ends between two looks leaves no depth behind.
func TestCallsTooShortToBeSeenKeepTheirWorker(t *testing.T) {
	s, now, count, state := scaling(), time.Unix(1000, 0), 1, policy.State{}
	for range 10 * int(window/time.Second) {
		now = now.Add(time.Second)
		var decision policy.Decision
		decision, state = policy.Decide(s, policy.Observed{Ended: 1, Count: count}, state, now)
		if count = decision.Count; count != 1 {
			t.Fatalf("%d workers for a call a second", count)
		}
	}
}

// TestDoubtKeepsNobodyWithoutNeed: workers that went and were missed stay longer the next time, but not when there are no calls at all.
func TestDoubtKeepsNobodyWithoutNeed(t *testing.T) {
	now, count, state := time.Unix(1000, 0), 0, policy.State{}
	at := func(after time.Duration, depth int64) int {
		now = now.Add(after)
		var decision policy.Decision
		decision, state = policy.Decide(scaling(), policy.Observed{Depth: depth, Count: count}, state, now)
		count = decision.Count
		return count
	}
	at(0, 20)
	at(time.Second, 16)
	if got := at(window, 16); got != 4 {
		t.Fatalf("%d workers after the window, want 4", got)
	}
	at(time.Second, 20) // and one of them is missed
	at(time.Second, 16)
	if got := at(window, 16); got != 5 {
		t.Errorf("%d workers after the window, want 5 for twice the window", got)
	}
	at(time.Second, 0)
	if got := at(window-1, 0); got != 4 {
		t.Errorf("%d workers within the window, want the 4 of twice the window", got)
	}
	if got := at(1, 0); got != 0 {
		t.Errorf("%d workers after a window without calls, want none", got)
	}
}
