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
func (w window) see(longest spec.Duration, count, wanted int, now time.Time) window {
	before := count
	if len(w.needs) > 0 {
		before = w.needs[len(w.needs)-1].workers
	}
	oldest := now.Add(-longest.Std())
	longer := window{append(make([]needed, 0, len(w.needs)+2), w.needs...)}
	return longer.push(needed{now, before}).push(needed{now, wanted}).since(oldest)
}

// push adds a need and drops the ones that it makes unimportant; it changes the window.
func (w window) push(n needed) window {
	kept := len(w.needs)
	for kept > 0 && w.needs[kept-1].workers <= n.workers {
		kept--
	}
	return window{append(w.needs[:kept], n)}
}

// since drops the needs that ended before.
func (w window) since(oldest time.Time) window {
	for len(w.needs) > 1 && !w.needs[0].until.After(oldest) {
		w.needs = w.needs[1:]
	}
	return w
}

// keep is how many workers the windows keep, and which window does. A need that ended a whole window ago counts no more. doubted is
// the scale-down window as doubt makes it: it keeps workers while there is any need, and none without.
func (w window) keep(scaling spec.Scaling, doubted spec.Duration, now time.Time) (int, spec.Duration) {
	within := func(length spec.Duration) int { return w.since(now.Add(-length.Std())).needs[0].workers }
	switch {
	case within(scaling.ScaledownWindow) > 0:
		return within(doubted), doubted
	case within(scaling.ZeroWindow) > 0:
		return 1, scaling.ZeroWindow
	}
	return 0, scaling.ScaledownWindow
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
