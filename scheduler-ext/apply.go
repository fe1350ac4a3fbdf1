package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
)

// Back-off after Nomad refused or failed a request.
const (
	applyTimeout = 10 * time.Second
	minRetry     = 100 * time.Millisecond
	maxRetry     = 10 * time.Second
	// staleRetry is the pause after somebody else changed the job in the same moment.
	staleRetry = 10 * time.Millisecond
)

// messagePrefix begins the message of every scaling that is ours: others are people's.
const messagePrefix = "freshet: "

// metaLease is the key of the lease's index in a scaling event.
const metaLease = "freshet.lease"

// errNotActing says that another instance acts now.
var errNotActing = errors.New("another autoscaler acts")

// applied is the end of a request to Nomad.
type applied struct {
	function queue.Function
	of       *state
	group    string
	from, to int
	index    uint64
	// adopted is set when the counts of the entry were looked into; byHand says until when they stand.
	adopted *jobs.Entry
	byHand  time.Time
	// live are the group's allocations, the highest-named first, when workers are taken away.
	live []ranked
	// kept are the allocations of all groups that Nomad runs, when they were asked for.
	kept []string
	// room says which group has room again, looked that it was looked for.
	looked, room string
	err          error
}

// target is Nomad, as far as counts go. Its requests run beside the scaler.
type target struct {
	nomad  *api.Client
	leader Leader
	log    zerolog.Logger
}

// scale tells Nomad a group's count.
func (t *target) scale(ctx context.Context, entry jobs.Entry, group string, from, to int, reason string) applied {
	done := applied{group: group, from: from, to: to}
	lease, acts := t.leader.Lease()
	if !acts {
		done.err = errNotActing
		return done
	}
	ctx, cancel := context.WithTimeout(ctx, min(applyTimeout, time.Until(lease.Until)))
	defer cancel()
	write := (&api.WriteOptions{Namespace: entry.Spec.Namespace}).WithContext(ctx)
	meta := map[string]any{metaLease: lease.Index}
	response, _, err := t.nomad.Jobs().Scale(entry.Job, group, &to, messagePrefix+reason, false, meta, write)
	if err != nil {
		done.err = fmt.Errorf("scale %s to %d: %w", entry.Key(), to, err)
		return done
	}
	done.index = response.JobModifyIndex
	t.log.Info().Str("app", entry.Spec.App).Str("function", entry.Spec.Name).Str("group", group).
		Int("from", from).Int("to", to).Str("reason", reason).Msg("scaled")
	return done
}

// settle takes the end of a request into the function's state, and carries out what was decided meanwhile.
func (a *scaler) settle(ctx context.Context, done applied) {
	s, ok := a.states[done.function]
	if !ok || s != done.of {
		return // it was forgotten meanwhile: its job is gone, or this instance lost the lease
	}
	s.busy = false
	if done.err != nil {
		a.refuse(s, done.err)
		return
	}
	s.retry, s.refused = 0, ""
	if done.adopted != nil {
		s.adopt(*done.adopted)
		s.byHand = done.byHand
	}
	if done.index > 0 {
		entry, _ := a.functions.Entry(done.function)
		counts := make(map[string]int, len(entry.Groups))
		for _, group := range entry.Groups {
			counts[group.Name] = s.countOf(entry, group)
		}
		counts[done.group] = done.to
		s.counts, s.index, s.scaledAt = counts, done.index, done.index
		s.wokeAt = time.Now()
	}
	for _, alloc := range done.kept {
		a.rests.tellWorker(done.function, alloc, 0)
	}
	if done.looked != "" {
		s.lookedFor(done.looked, done.room != "", time.Now())
	}
	if done.live != nil {
		a.rests.rest(done.function, s, done)
	}
	if item := s.later; item != nil {
		s.later = nil
		if item.JobIndex >= s.scaledAt {
			s.placed(*item, time.Now())
		}
	}
	a.decide(ctx, done.function, s, time.Now())
}

// refuse notes a failed request, which a later sweep tries again.
func (a *scaler) refuse(s *state, err error) {
	if errors.Is(err, errNotActing) || errors.Is(err, context.Canceled) {
		return
	}
	s.refused = err.Error()
	if stale(err) {
		s.retryAt = time.Now().Add(staleRetry)
		return
	}
	s.retry = min(max(2*s.retry, minRetry), maxRetry)
	s.retryAt = time.Now().Add(s.retry/2 + rand.N(s.retry/2)) // not all functions at once after an outage
	a.metrics.refused()
	a.log.Warn().Err(err).Dur("again_in", s.retry).Msg("scale")
}

// stale tells that the job changed while Nomad scaled it: the same request may well succeed now.
func stale(err error) bool {
	var response api.UnexpectedResponseError
	return errors.As(err, &response) && response.StatusCode() == http.StatusInternalServerError &&
		strings.Contains(response.Body(), "job modify index")
}

// askWho asks Nomad whether a person set the counts that somebody else set. A person's count stands for the scale-down window;
// one that came with a new version of the job is where the autoscaler goes on from.
func (a *scaler) askWho(ctx context.Context, function queue.Function, s *state, entry jobs.Entry) {
	a.start(ctx, function, s, func(ctx context.Context) applied { return a.target.who(ctx, entry) }, time.Time{})
}

// Nomad notes a scaling a moment after the job changed: whoWait is the pause before it is asked again, whoTries how often.
const (
	whoWait  = 50 * time.Millisecond
	whoTries = 4
)

func (t *target) who(ctx context.Context, entry jobs.Entry) applied {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	done := applied{adopted: &entry}
	for range whoTries {
		status, _, err := t.nomad.Jobs().ScaleStatus(entry.Job, (&api.QueryOptions{Namespace: entry.Spec.Namespace}).WithContext(ctx))
		if err != nil {
			done.err = fmt.Errorf("read scalings of %s: %w", entry.Key(), err)
			return done
		}
		if done.byHand = byHand(status, entry); !done.byHand.IsZero() {
			return done
		}
		select {
		case <-time.After(whoWait):
		case <-ctx.Done():
		}
	}
	return done
}

// byHand is until when the counts stand because a person set them; zero when none did.
func byHand(status *api.JobScaleStatusResponse, entry jobs.Entry) time.Time {
	var until time.Time
	for _, group := range entry.Groups {
		var last api.ScalingEvent
		for _, event := range status.TaskGroups[group.Name].Events {
			if event.CreateIndex > last.CreateIndex && event.Count != nil {
				last = event
			}
		}
		if last.Count == nil || int(*last.Count) != group.Count || strings.HasPrefix(last.Message, messagePrefix) {
			continue
		}
		stands := time.Unix(0, int64(last.Time)).Add(entry.Spec.Scaling.ScaledownWindow.Std()) //nolint:gosec // a time of this century
		if stands.After(until) {
			until = stands
		}
	}
	return until
}
