package simulator

import (
	"fmt"
	"math"
	"time"

	"github.com/freshet-dev/freshet/scheduler-ext/policy"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// Policy makes the scaler of one function.
type Policy struct {
	// Name is for people; Family is what its variants have in common.
	Name, Family string
	New          func() Scaler
}

// Seen is what a scaler sees of the function.
type Seen struct {
	Depth        int64
	Count, Ready int
	// Ended is the number of calls that ended since the last look.
	Ended int64
	// Service is the mean length of the calls that ended, Start the mean time of starts; 0 while not known.
	Service, Start time.Duration
}

// Scaler decides for one function.
type Scaler interface {
	// Decide tells how many workers there should be.
	Decide(seen Seen, now time.Duration) int
	// Pause is how long after a decision the next one comes, without a call that finds no free slot.
	Pause(seen Seen) time.Duration
	// Eager says that a call which finds no free slot is decided about at once.
	Eager() bool
}

// scaler is ours: the policy that the autoscaler runs, at its pace.
type scaler struct {
	scaling     spec.Scaling
	concurrency int
	state       policy.State
	busy        time.Duration // when there were calls last
	now         time.Duration
}

// Ours is freshet's policy.
func Ours(name string, scaling spec.Scaling, concurrency int) Policy {
	f := spec.Function{Scaling: scaling, Config: spec.Config{Concurrency: concurrency}}.WithDefaults()
	return Policy{name, family, func() Scaler { return &scaler{scaling: f.Scaling, concurrency: concurrency} }}
}

func (s *scaler) Decide(seen Seen, now time.Duration) int {
	decision, state := policy.Decide(s.scaling, policy.Observed{
		Depth: seen.Depth, Ended: seen.Ended, Count: seen.Count, Ready: seen.Ready, Concurrency: s.concurrency, Service: seen.Service, Start: seen.Start,
	}, s.state, time.Unix(0, 0).Add(now))
	s.state, s.now = state, now
	if seen.Depth > 0 || seen.Ended > 0 {
		s.busy = now
	}
	return decision.Count
}

// Pause is the autoscaler's own; while nothing is queued only the windows' ends matter, so they are looked at more seldom, and
// after them not at all.
func (s *scaler) Pause(seen Seen) time.Duration {
	window := max(s.scaling.ScaledownWindow, s.scaling.ZeroWindow).Std()
	switch {
	case seen.Depth > 0:
		return 250 * time.Millisecond
	case s.now-s.busy > 2*window:
		return 24 * time.Hour
	}
	return max(window/20, 250*time.Millisecond)
}

func (s *scaler) Eager() bool { return true }

// hpa decides as the Kubernetes horizontal autoscaler is documented to, by its defaults: every 15 s, the count in proportion to
// the calls a worker over their target, unless within a tenth of it; up by at most 4 or double, down to the highest of the last
// five minutes; never to zero.
type hpa struct {
	target int
	window time.Duration
	past   []recommended
}

type recommended struct {
	at    time.Duration
	count int
}

const (
	hpaEvery     = 15 * time.Second
	hpaTolerance = 0.1
	hpaStep      = 4
)

// HPA is a policy like Kubernetes's, with a stabilisation window for scaling down (by default 5 minutes).
func HPA(concurrency int, window time.Duration) Policy {
	return Policy{fmt.Sprintf("hpa-like, %s", window), "hpa-like", func() Scaler { return &hpa{target: concurrency, window: window} }}
}

func (h *hpa) Decide(seen Seen, now time.Duration) int {
	wanted := seen.Count
	if ready := max(seen.Ready, 1); math.Abs(float64(seen.Depth)/float64(ready*h.target)-1) > hpaTolerance {
		wanted = int(math.Ceil(float64(seen.Depth) / float64(h.target)))
	}
	wanted = max(min(wanted, max(seen.Count+hpaStep, 2*seen.Count)), 1)
	h.past = append(h.past, recommended{now, wanted})
	for h.past[0].at < now-h.window {
		h.past = h.past[1:]
	}
	highest := 0
	for _, p := range h.past {
		highest = max(highest, p.count)
	}
	if wanted >= seen.Count {
		return wanted
	}
	return min(highest, seen.Count)
}

func (h *hpa) Pause(Seen) time.Duration { return hpaEvery }
func (h *hpa) Eager() bool              { return false }

// nomadAutoscaler decides as nomad-autoscaler's target-value strategy is documented to: at each evaluation the count in
// proportion to the calls a worker over their target, unless within a hundredth of it, and nothing during the cool-down after a
// change.
type nomadAutoscaler struct {
	target          int
	every, cooldown time.Duration
	until           time.Duration
}

// NomadAutoscaler is a policy like nomad-autoscaler's; by default it evaluates every 10 s and cools down for 5 minutes.
func NomadAutoscaler(concurrency int, every, cooldown time.Duration) Policy {
	return Policy{
		fmt.Sprintf("nomad-autoscaler-like, %s, %s", every, cooldown), "nomad-autoscaler-like",
		func() Scaler { return &nomadAutoscaler{target: concurrency, every: every, cooldown: cooldown} },
	}
}

func (n *nomadAutoscaler) Decide(seen Seen, now time.Duration) int {
	if now < n.until {
		return seen.Count
	}
	wanted := int(math.Ceil(float64(seen.Depth) / float64(n.target)))
	if seen.Count > 0 && math.Abs(float64(seen.Depth)/float64(seen.Count*n.target)-1) < 0.01 || wanted == seen.Count {
		return seen.Count
	}
	n.until = now + n.cooldown
	return wanted
}

func (n *nomadAutoscaler) Pause(Seen) time.Duration { return n.every }
func (n *nomadAutoscaler) Eager() bool              { return false }

// Variants are settings of our policy, from the cheapest to the readiest.
func Variants(concurrency int) []Policy {
	var list []Policy
	for _, least := range []int{0, 1} {
		for _, seconds := range []int{1, 5, 20, 60, 180, 300, 600} {
			window := spec.Duration(seconds) * spec.Duration(time.Second)
			list = append(list, Ours(fmt.Sprintf("min %d, window %s", least, window), spec.Scaling{Min: least, Max: spec.MaxScale, ScaledownWindow: window}, concurrency))
		}
	}
	return list
}

// References are the policies of others: by their defaults, and as fast as is sensible for each.
func References(concurrency int) []Policy {
	return []Policy{
		HPA(concurrency, 5*time.Minute), HPA(concurrency, 30*time.Second),
		NomadAutoscaler(concurrency, 10*time.Second, 5*time.Minute), NomadAutoscaler(concurrency, 5*time.Second, 20*time.Second),
	}
}
