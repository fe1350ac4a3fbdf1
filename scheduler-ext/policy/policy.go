// Package policy decides how many workers a function should have. It is pure: the same observations at the same times give the
// same decisions, so what it does can be tested and simulated. docs/autoscaling.md explains it, with its formulas.
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
	// Ended is the number of calls that ended since the last look: short ones are never seen waiting or running.
	Ended int64
	// Count is how many workers Nomad was told to run, Ready how many of them take calls.
	Count, Ready int
	// Concurrency is the number of slots of a worker.
	Concurrency int
	// Service is the measured time that a call holds a slot, Start the measured time from a count's rise to a worker that takes
	// calls; 0 while not known.
	Service, Start time.Duration
	// Floor is the least number of workers that a schedule asks for now.
	Floor int
	// Quota is the most workers that others leave to the function, if Limited.
	Quota   int
	Limited bool
	// Failures is the number of starts that failed since the last one that succeeded; Failure says why the last one did.
	Failures int
	Failure  string
	// ByHand says until when a count that a person set stands; in the past for none.
	ByHand time.Time
}

// State is what the policy remembers of a function. The zero value is that of a function never seen.
type State struct {
	window  window
	starts  starts
	periods periods
	// count is the last one that was seen, if any was.
	count int
	known bool
	doubt doubt
}

// Decision is how many workers there should be, and why.
type Decision struct {
	Count int
	// Need is the number of workers that the calls alone ask for.
	Need int
	// Reason is for people; Held are the limits without which the count would be another, each in words.
	Reason string
	Held   []string
}

// Limits on failing starts.
const (
	// suspicious is the number of failed starts in a row from which no more workers are started than one to try with.
	suspicious = 2
	// hopeless is the number from which, while no worker is ready, all but that one are taken away.
	hopeless = 4
)

// Decide tells how many workers the function should have now.
//
// The need follows from the calls (see need), its least and most from the spec, schedules, prediction and quota. Workers are
// added at once, as far as the rate and the failures of starts allow. They are taken away when the need was lower for the whole
// scale-down window, down to the highest need of that window, and the last one when there was none for the zero window. The
// window of a function whose workers had to come back soon after they went is longer.
func Decide(scaling spec.Scaling, seen Observed, state State, now time.Time) (Decision, State) {
	d := Decision{Need: need(scaling, seen)}
	state.periods = state.periods.observe(scaling, d.Need, now)
	least, most := bounds(scaling, seen, state, now, &d)
	wanted := min(max(d.Need, least), most)
	if d.Need > most {
		d.hold("%d would be needed", d.Need)
	}
	doubted := state.doubt.lengthen(scaling.ScaledownWindow)
	state.window = state.window.see(max(doubted, scaling.ZeroWindow), seen.Count, wanted, now)
	state = state.rose(scaling, seen.Count, now)
	if now.Before(seen.ByHand) {
		d.Count, d.Reason = min(max(seen.Count, scaling.Min), scaling.Max), "set by hand"
		d.hold("set to %d by hand, which stands until %s", seen.Count, seen.ByHand.UTC().Format(time.TimeOnly))
		return d, state
	}
	kept, why := state.window.keep(scaling, doubted, now)
	kept = min(max(kept, least), most)
	switch {
	case wanted > seen.Count:
		d.Count, d.Reason = wanted, reasonUp(scaling, seen, d.Need, wanted)
		d.restrain(scaling, seen, state)
		state.doubt = state.doubt.rise(doubted, now)
	case kept < seen.Count:
		d.Count, d.Reason = kept, fmt.Sprintf("no more than %d needed for %s", kept, why)
		state.doubt = state.doubt.fall(doubted, kept, now)
	case wanted < seen.Count:
		d.Count, d.Reason = seen.Count, fmt.Sprintf("%d needed now, %d within %s", wanted, kept, why)
	default:
		d.Count, d.Reason = seen.Count, "as needed"
	}
	if seen.Failures >= hopeless && seen.Ready == 0 && d.Count > max(least, 1) {
		d.Count, d.Reason = max(least, 1), "starts fail"
		d.hold("%d starts failed in a row, so one worker tries: %s", seen.Failures, seen.Failure)
	}
	return d, state
}

func reasonUp(scaling spec.Scaling, seen Observed, need, wanted int) string {
	switch {
	case need == 0 || wanted > need:
		return fmt.Sprintf("no fewer than %d", wanted)
	case seen.Depth == 0:
		return "somebody waits"
	case scaling.BacklogTarget > 0 && seen.Service > 0:
		return fmt.Sprintf("%d calls of %s within %s", seen.Depth, seen.Service.Round(time.Millisecond), scaling.BacklogTarget)
	}
	return fmt.Sprintf("%d calls for %d each", seen.Depth, scaling.TargetInflight)
}

// hold notes a limit.
func (d *Decision) hold(format string, values ...any) {
	d.Held = append(d.Held, fmt.Sprintf(format, values...))
}

// bounds are the least and the most workers of this moment.
func bounds(scaling spec.Scaling, seen Observed, state State, now time.Time, d *Decision) (least, most int) {
	most = scaling.Max
	if seen.Limited && seen.Quota < most {
		most = max(seen.Quota, scaling.Min) // Nomad itself enforces the job's minimum
		d.hold("a quota leaves %d", seen.Quota)
	}
	least = scaling.Min
	if seen.Floor > least {
		least = seen.Floor
		d.hold("a schedule keeps %d", seen.Floor)
	}
	if predicted := state.periods.predict(scaling, seen.Start, now); predicted > max(least, d.Need) {
		least = predicted
		d.hold("the load of the last period asks for %d", predicted)
	}
	return min(least, most), most
}

// restrain lowers a rise to what the failures and the rate of starts allow.
func (d *Decision) restrain(scaling spec.Scaling, seen Observed, state State) {
	if limit := max(seen.Count, seen.Ready+1); seen.Failures >= suspicious && d.Count > limit {
		d.Count = limit
		d.hold("%d starts failed in a row, so one worker tries: %s", seen.Failures, seen.Failure)
	}
	if scaling.StartsPerMinute > 0 {
		if free := max(scaling.StartsPerMinute-state.starts.sum(), 0); d.Count-seen.Count > free {
			d.Count = seen.Count + free
			d.hold("%d starts a minute", scaling.StartsPerMinute)
		}
	}
}

// rose notes the workers that were started since the last look, where their rate is limited.
func (s State) rose(scaling spec.Scaling, count int, now time.Time) State {
	s.starts = s.starts.since(now.Add(-time.Minute))
	if s.known && count > s.count && scaling.StartsPerMinute > 0 {
		s.starts = s.starts.add(now, count-s.count)
	}
	s.count, s.known = count, true
	return s
}
