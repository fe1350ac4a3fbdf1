package gateway

import (
	"context"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
)

// measureEvery is how old the measured length of a queue may be when a call is refused because of it.
const measureEvery = time.Second

// measure keeps the lengths of the queues that calls come for: this gateway's own callers are counted exactly, those of
// other gateways only so. It also forgets functions that are gone.
func (g *Gateway) measure(ctx context.Context) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if g.functions.Ready() {
			g.metrics.prune(g.known)
		}
		touched := g.metrics.touched()
		if len(touched) == 0 {
			continue
		}
		depths, err := g.depths(ctx)
		if err != nil {
			if ctx.Err() == nil {
				g.exchange.log.Debug().Err(err).Msg("measure queues; their last lengths stand")
			}
			continue
		}
		for _, stats := range touched {
			stats.depth.Store(depths[stats.function])
		}
	}
}

func (d directory) known(function queue.Function) bool {
	_, ok := d.functions.Entry(function)
	return ok
}

// touched are the functions that were called since the last time, and those whose queues were too long then.
func (m *metrics) touched() []*functionStats {
	var list []*functionStats
	m.byFunction.Range(func(_, value any) bool {
		stats := value.(*functionStats) //nolint:forcetypeassert // the map holds nothing else
		if stats.touched.Swap(false) || stats.depth.Load() > 0 {
			list = append(list, stats)
		}
		return true
	})
	return list
}
