package autoscaler

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/policy"
)

// Back-off after Nomad refused or failed a scaling.
const (
	applyTimeout = 10 * time.Second
	minRetry     = 100 * time.Millisecond
	maxRetry     = 10 * time.Second
)

// state is what is known of one function while it has calls or workers.
type state struct {
	depth  int64
	demand time.Time // of the last hint
	policy policy.State

	// busy says that Nomad is being told.
	busy bool
	// scaled is the count that Nomad accepted last, at its index: the watcher may still show an older one.
	scaled int
	index  uint64
	// retryAt and retry pace the attempts after a failure.
	retryAt time.Time
	retry   time.Duration
}

// count is the newer of what was last set and what the watcher saw.
func (s *state) count(entry jobs.Entry) int {
	if s.index > entry.Index {
		return s.scaled
	}
	return entry.Count
}

// applied is the end of a scaling.
type applied struct {
	function queue.Function
	count    int
	index    uint64
	err      error
}

// apply tells Nomad.
func (a *Autoscaler) apply(ctx context.Context, entry jobs.Entry, decision policy.Decision) applied {
	done := applied{function: entry.Key(), count: decision.Count}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	write := (&api.WriteOptions{Namespace: entry.Spec.Namespace}).WithContext(ctx)
	response, _, err := a.nomad.Jobs().Scale(entry.Job, entry.Groups[0].Name, &decision.Count, "freshet: "+decision.Reason, false, nil, write)
	if err != nil {
		done.err = fmt.Errorf("scale %s to %d: %w", done.function, decision.Count, err)
		return done
	}
	done.index = response.JobModifyIndex
	a.log.Info().Str("app", entry.Spec.App).Str("function", entry.Spec.Name).
		Int("from", entry.Count).Int("to", decision.Count).Str("reason", decision.Reason).Msg("scaled")
	return done
}

// settle takes the end of a scaling into the function's state. A failed one is tried again by a later sweep.
func (a *Autoscaler) settle(done applied) {
	s := a.state(done.function)
	s.busy = false
	if done.err == nil {
		s.scaled, s.index, s.retry = done.count, done.index, 0
		return
	}
	s.retry = min(max(2*s.retry, minRetry), maxRetry)
	s.retryAt = time.Now().Add(s.retry)
	a.log.Warn().Err(done.err).Dur("again_in", s.retry).Msg("scale")
}
