package autoscaler

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/scheduler-ext/quota"
)

// limitsEvery is how often the namespaces' limits are read.
const limitsEvery = 10 * time.Second

// share divides limits and nodes between the functions that have calls or workers.
func (a *scaler) share(ctx context.Context, now time.Time) {
	if now.Sub(a.limited) > limitsEvery {
		a.limited = now
		a.scaling.Go(func() { a.readLimits(ctx) })
	}
	demands := make([]quota.Demand, 0, len(a.states))
	for function, s := range a.states {
		entry, known := a.functions.Entry(function)
		if !known || entry.Err != nil || len(entry.Groups) == 0 {
			continue
		}
		d := quota.Demand{
			Function: function, Need: min(s.decision.Need, entry.Spec.Scaling.Max), Min: entry.Spec.Scaling.Min, Count: s.count(entry),
			Devices: entry.Groups[0].Devices,
		}
		for _, count := range s.unplaced {
			d.Unplaced += count
		}
		d.Placed = min(s.housed, d.Count)
		if len(entry.Groups) == 1 { // one with several groups moves on where there is no room
			d.Pool = fmt.Sprintf("priority %d, %s, %s", entry.Spec.Priority, entry.Groups[0].Device, strings.Join(entry.Spec.Datacenters, ","))
		}
		demands = append(demands, d)
	}
	quotas := a.sharing.Divide(demands, now)
	for function, s := range a.states {
		q, limited := quotas[function]
		s.quota, s.limited, s.quotaBy = q.Workers, limited, q.Why
	}
}

// readLimits reads the limits of all environments and hands them to the loop.
func (a *scaler) readLimits(ctx context.Context) {
	reading, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	list, _, err := a.target.nomad.Namespaces().List((&api.QueryOptions{}).WithContext(reading))
	if err != nil {
		if ctx.Err() == nil {
			a.log.Warn().Err(err).Msg("read the limits of namespaces; those known stay in force")
		}
		return
	}
	namespaces := make(map[string]map[string]string, len(list))
	for _, namespace := range list {
		namespaces[namespace.Name] = namespace.Meta
	}
	limits, wrong := quota.Read(namespaces)
	for _, err := range wrong {
		a.log.Warn().Err(err).Msg("a limit is not in force")
	}
	select {
	case a.limits <- limits:
	case <-ctx.Done():
	}
}
