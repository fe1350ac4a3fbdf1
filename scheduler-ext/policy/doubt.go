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

func (d doubt) lengthen(scaling spec.Scaling) spec.Scaling {
	scaling.ScaledownWindow *= spec.Duration(max(d.times, 1))
	return scaling
}

// fall notes that workers go. One that follows on a fall which lasted takes half of the doubt away.
func (d doubt) fall(scaling spec.Scaling, kept int, now time.Time) doubt {
	if kept == 0 {
		return d
	}
	if !d.fell.IsZero() && now.Sub(d.fell) > 2*scaling.ScaledownWindow.Std() {
		d.times /= 2
	}
	d.fell = now
	return d
}

// rise notes that workers come.
func (d doubt) rise(scaling spec.Scaling, now time.Time) doubt {
	if !d.fell.IsZero() && now.Sub(d.fell) < scaling.ScaledownWindow.Std() {
		return doubt{times: min(2*max(d.times, 1), mostDoubt)}
	}
	return d
}
