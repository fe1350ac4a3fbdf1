package policy

import (
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// mostDoubt is how many times longer the scale-down window gets at most.
const mostDoubt = 16

// doubt lengthens the scale-down window of a function that lost workers and needed them again within the window: depths are
// looked at now and then, and a need between two looks shows only when a worker is missing. Going to zero has a window of its
// own and no doubt.
type doubt struct {
	times int // longer; 0 is as 1
	fell  time.Time
}

func (d doubt) lengthen(window spec.Duration) spec.Duration {
	return window * spec.Duration(max(d.times, 1))
}

// fall notes that workers go. One that follows on a fall which lasted takes half of the doubt away.
func (d doubt) fall(window spec.Duration, kept int, now time.Time) doubt {
	if kept == 0 {
		return d
	}
	if !d.fell.IsZero() && now.Sub(d.fell) > 2*window.Std() {
		d.times /= 2
	}
	d.fell = now
	return d
}

// rise notes that workers come.
func (d doubt) rise(window spec.Duration, now time.Time) doubt {
	if !d.fell.IsZero() && now.Sub(d.fell) < window.Std() {
		return doubt{times: min(2*max(d.times, 1), mostDoubt)}
	}
	return d
}
