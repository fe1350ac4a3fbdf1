// Package policy decides how many workers a function should have. It is pure: the same observations at the same times give the
// same decisions, so what it does can be tested and simulated. docs/autoscaling.md explains it.
package policy

import (
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Observed is what is known of a function at one time.
type Observed struct {
	// Depth is the number of calls waiting and running; Demand says that somebody waits, though the depth may not show it yet.
	Depth  int64
	Demand bool
	// Count is how many workers the function should have by the last decision.
	Count int
}

// State is what the policy remembers of a function. The zero value is that of a function never seen.
type State struct {
	// needs are those of the scale-down window, each higher than all that came after it, oldest first; the last one is the
	// present one.
	needs []need
}

// need is a number of workers that was needed until some time.
type need struct {
	until   time.Time
	workers int
}

// Decision is how many workers there should be, and why.
type Decision struct {
	Count  int
	Reason string
}

// Decide tells how many workers the function should have now.
//
// The need is depth over the target of calls a worker, rounded up, plus the buffer while there is any, within min and max.
// Workers are added at once. They are taken away when the need was lower for the whole scale-down window, down to the
// highest need of that window.
func Decide(scaling spec.Scaling, seen Observed, state State, now time.Time) (Decision, State) {
	wanted := wanted(scaling, seen)
	before := seen.Count // of a function never seen, as after a restart of the autoscaler: its workers' need counts from now
	if len(state.needs) > 0 {
		before = state.needs[len(state.needs)-1].workers
	}
	state = state.remember(need{now, before}).remember(need{now, wanted}).forget(now.Add(-scaling.ScaledownWindow.Std()))
	highest := state.needs[0].workers
	switch {
	case wanted > seen.Count:
		return Decision{wanted, fmt.Sprintf("%d calls for %d each", seen.Depth, scaling.TargetInflight)}, state
	case highest < seen.Count:
		return Decision{highest, fmt.Sprintf("no more than %d needed for %s", highest, scaling.ScaledownWindow)}, state
	case wanted < seen.Count:
		return Decision{seen.Count, fmt.Sprintf("%d needed now, %d within %s", wanted, highest, scaling.ScaledownWindow)}, state
	}
	return Decision{seen.Count, "as needed"}, state
}

// wanted is the need of this moment.
func wanted(scaling spec.Scaling, seen Observed) int {
	target := int64(max(scaling.TargetInflight, 1))
	workers := (seen.Depth + target - 1) / target
	if workers == 0 && seen.Demand {
		workers = 1
	}
	if workers > 0 {
		workers += int64(scaling.Buffer)
	}
	return int(min(max(workers, int64(scaling.Min)), int64(scaling.Max)))
}

// remember adds a need and drops the ones it makes unimportant. The state given is not changed.
func (s State) remember(n need) State {
	kept := len(s.needs)
	for kept > 0 && s.needs[kept-1].workers <= n.workers {
		kept--
	}
	return State{needs: append(s.needs[:kept:kept], n)}
}

// forget drops the needs that ended before the window.
func (s State) forget(before time.Time) State {
	for len(s.needs) > 1 && !s.needs[0].until.After(before) {
		s.needs = s.needs[1:]
	}
	return s
}
