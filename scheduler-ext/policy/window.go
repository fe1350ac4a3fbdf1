package policy

import (
	"slices"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// window remembers the needs of the scale-down and zero windows: each is higher than all that came after it, so it is short. The
// oldest stands first, the present one last.
type window struct{ needs []needed }

// needed is a number of workers that was needed until some time.
type needed struct {
	until   time.Time
	workers int
}

// see takes the need of this moment. The workers of a function never seen, as after a restart of the autoscaler, count as needed
// until now. The window given is not changed.
func (w window) see(scaling spec.Scaling, count, wanted int, now time.Time) window {
	before := count
	if len(w.needs) > 0 {
		before = w.needs[len(w.needs)-1].workers
	}
	oldest := now.Add(-max(scaling.ScaledownWindow, scaling.ZeroWindow).Std())
	return w.push(needed{now, before}).push(needed{now, wanted}).since(oldest)
}

// push adds a need and drops the ones that it makes unimportant.
func (w window) push(n needed) window {
	kept := len(w.needs)
	for kept > 0 && w.needs[kept-1].workers <= n.workers {
		kept--
	}
	return window{append(w.needs[:kept:kept], n)}
}

// since drops the needs that ended before.
func (w window) since(oldest time.Time) window {
	for len(w.needs) > 1 && !w.needs[0].until.After(oldest) {
		w.needs = w.needs[1:]
	}
	return w
}

// keep is how many workers the windows keep, and which window does. A need that ended a whole window ago counts no more.
func (w window) keep(scaling spec.Scaling, now time.Time) (int, spec.Duration) {
	highest := w.since(now.Add(-scaling.ScaledownWindow.Std())).needs[0].workers
	if highest == 0 && w.since(now.Add(-scaling.ZeroWindow.Std())).needs[0].workers > 0 {
		return 1, scaling.ZeroWindow
	}
	return highest, scaling.ScaledownWindow
}

// starts are those of the last minute, for the rate limit.
type starts []start

type start struct {
	at    time.Time
	count int
}

func (s starts) since(oldest time.Time) starts {
	for len(s) > 0 && !s[0].at.After(oldest) {
		s = s[1:]
	}
	return s
}

func (s starts) add(at time.Time, count int) starts { return append(slices.Clip(s), start{at, count}) }

func (s starts) sum() int {
	sum := 0
	for _, one := range s {
		sum += one.count
	}
	return sum
}
