package autoscaler

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
)

// lookForRoom asks Nomad, now and then, whether a better group than those in use has room again, and, while workers wait for a
// place, whether any has. It is a plan, which changes nothing.
func (a *scaler) lookForRoom(ctx context.Context, function queue.Function, s *state, entry jobs.Entry, target []int) {
	now := time.Now()
	waiting := 0
	for _, count := range s.unplaced {
		waiting += count
	}
	for i, group := range entry.Groups {
		full, isFull := s.full[group.Name]
		if !isFull || now.Before(full.look) {
			continue
		}
		worse := waiting // or without a place at all
		for _, count := range target[i+1:] {
			worse += count
		}
		if worse == 0 { // nothing waits for it: what comes next tries it first
			delete(s.full, group.Name)
			continue
		}
		count := s.countOf(entry, group)
		a.start(ctx, function, s, func(ctx context.Context) applied { return a.target.plan(ctx, entry, group.Name, count+1) }, time.Time{})
		return
	}
}

// plan asks whether a group could have a count.
func (t *target) plan(ctx context.Context, entry jobs.Entry, group string, count int) applied {
	done := applied{looked: group}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	job, _, err := t.nomad.Jobs().Info(entry.Job, (&api.QueryOptions{Namespace: entry.Spec.Namespace}).WithContext(ctx))
	if err != nil {
		done.err = fmt.Errorf("read job %s: %w", entry.Job, err)
		return done
	}
	for _, g := range job.TaskGroups {
		if *g.Name == group {
			g.Count = &count
		}
	}
	plan, _, err := t.nomad.Jobs().Plan(job, false, (&api.WriteOptions{Namespace: entry.Spec.Namespace}).WithContext(ctx))
	if err != nil {
		done.err = fmt.Errorf("plan job %s: %w", entry.Job, err)
		return done
	}
	if plan.FailedTGAllocs[group] == nil {
		done.room = group
	}
	return done
}

// lookedFor takes what the plan said.
func (s *state) lookedFor(group string, room bool, now time.Time) {
	if room {
		delete(s.full, group)
		return
	}
	full := s.full[group]
	full.pause = min(2*full.pause, maxLook)
	full.look = now.Add(full.pause)
	s.full[group] = full
}
