package autoscaler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
)

// keptWait is how long Nomad's news of a scaling is waited for before those who rest are looked for without it.
const keptWait = time.Second

// wakeKept looks, when nobody is to go, for workers that rest although Nomad keeps them, and has them go on. A count that fell
// and rose again before Nomad looked at it changes nothing there; an autoscaler that died had asked others. Without a word they
// would stay idle until their rest ends by itself, while calls wait. It tells whether Nomad is asked.
func (a *scaler) wakeKept(ctx context.Context, function queue.Function, s *state, entry jobs.Entry) bool {
	if s.shrink != nil {
		return false
	}
	now := time.Now()
	acted := s.evaluated >= s.scaledAt && s.evaluated > s.wokeFor // before, those that are to be stopped look like all others
	if !acted && now.Sub(s.wokeAt) < keptWait {
		return false
	}
	resting := a.fleet.Resting(function)
	if len(resting) == 0 {
		return false
	}
	s.wokeAt, s.wokeFor = now, s.evaluated
	a.start(ctx, function, s, func(ctx context.Context) applied { return a.target.keeps(ctx, entry, resting) }, time.Time{})
	return true
}

// keeps tells which of the allocations Nomad runs on.
func (t *target) keeps(ctx context.Context, entry jobs.Entry, allocs []string) applied {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	list, _, err := t.nomad.Jobs().Allocations(entry.Job, false, (&api.QueryOptions{Namespace: entry.Spec.Namespace}).WithContext(ctx))
	if err != nil {
		return applied{err: fmt.Errorf("list allocations of %s: %w", entry.Key(), err)}
	}
	var done applied
	for _, alloc := range list {
		if alloc.DesiredStatus == api.AllocDesiredStatusRun && slices.Contains(allocs, alloc.ID) {
			done.kept = append(done.kept, alloc.ID)
		}
	}
	return done
}
