package gateway

import (
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
)

// hintEvery bounds the demand hints of one function: the first one counts, the rest is the autoscaler's own measuring.
const hintEvery = 50 * time.Millisecond

// hintDemand tells the autoscaler, without waiting, that the function has a call and no free worker for it. A hint is
// never needed for correctness: the autoscaler reads the queue's depth too.
func (x *exchange) hintDemand(function queue.Function, stats *functionStats, now time.Time) {
	others := stats.waiting.Load() - 1 // this call is among them
	if x.workers.free(function, others) > 0 {
		return
	}
	last := stats.hinted.Load()
	if now.UnixNano()-last < int64(hintEvery) || !stats.hinted.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	if err := x.nc.Publish(function.DemandSubject(), nil); err != nil {
		x.log.Debug().Err(err).Str("app", function.App).Str("function", function.Name).Msg("hint demand")
	}
}
