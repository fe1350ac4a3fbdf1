package policy

import (
	"math"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// need is the number of workers that the calls ask for, and the buffer while there are any.
func need(scaling spec.Scaling, seen Observed) int {
	depth := seen.Depth
	if depth == 0 && (seen.Demand || seen.Ended > 0) {
		depth = 1
	}
	if depth <= 0 {
		return 0
	}
	target := int64(max(scaling.TargetInflight, 1))
	workers := (depth + target - 1) / target
	if scaling.BacklogTarget > 0 && seen.Service > 0 {
		workers = min(workers, forBacklog(scaling, seen, depth))
	}
	return int(min(workers+int64(scaling.Buffer), spec.MaxScale))
}

// forBacklog is the number of workers with which the calls are done within the target.
//
// A ready worker does Concurrency/Service calls a second from now on, a new one only after its start. A target too short for any
// new worker to help is stretched to the first moment at which one can: its start and one call.
func forBacklog(scaling spec.Scaling, seen Observed, depth int64) int64 {
	horizon := max(scaling.BacklogTarget.Std(), seen.Start+seen.Service)
	slots := float64(max(seen.Concurrency, 1))
	done := func(workers int, within time.Duration) float64 {
		return float64(workers) * slots * math.Max(1, math.Floor(float64(within)/float64(seen.Service)))
	}
	left := float64(depth) - done(seen.Ready, horizon)
	if left <= 0 { // the ready ones suffice, perhaps fewer of them
		return int64(math.Ceil(float64(depth) / done(1, horizon)))
	}
	return int64(seen.Ready) + int64(math.Ceil(left/done(1, horizon-seen.Start)))
}
