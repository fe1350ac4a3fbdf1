package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// startsEvery is how often functions are looked at whose callers wait here without a worker.
	startsEvery = time.Second
	// startsWait bounds an answer of the autoscaler.
	startsWait = time.Second
	// hopeless is how many starts in a row must have failed for callers to be told.
	hopeless = 2
	// unstarted is how long a call waits at least, so that a start of its own is tried.
	unstarted = 3 * time.Second
)

// starts look at functions whose calls have no worker.
type starts struct{ *exchange }

// watch ends the calls that wait here for functions whose workers do not start: a worker that comes up as far as running the
// function's code tells by itself, but one whose image or node is at fault is seen by Nomad alone.
func (x starts) watch(ctx context.Context) {
	ticker := time.NewTicker(startsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for function, calls := range x.waiters.waitedFor(time.Now().Add(-unstarted)) {
			if all, _ := x.workers.count(function); all > 0 {
				continue // one that starts may yet be ready
			}
			found, err := x.ask(ctx, function)
			if err != nil || found.Ready > 0 || found.Failures < hopeless {
				continue
			}
			reason := fmt.Sprintf("the function does not start; %d starts in a row failed, the last one: %s", found.Failures, found.Failure)
			x.giveUp(ctx, function, calls, reason)
		}
	}
}

func (x starts) ask(ctx context.Context, function queue.Function) (queue.Starts, error) {
	ctx, cancel := context.WithTimeout(ctx, startsWait)
	defer cancel()
	found, err := queue.AskStarts(ctx, x.nc, function)
	if err != nil {
		x.log.Debug().Err(err).Msg("look why calls wait")
	}
	return found, err
}

// giveUp ends calls as a worker would that does not start: what stands as their result is what their callers are told.
func (x starts) giveUp(ctx context.Context, function queue.Function, calls []string, reason string) {
	for _, call := range calls {
		failed := &wire.Error{Kind: wire.KindStart, Message: reason}
		stands, err := queue.End(ctx, x.js, queue.Result{Call: call, Keep: keepResult, Error: failed})
		if err == nil && stands.Error != nil && stands.Error.Kind == wire.KindStart {
			err = queue.Cancel(ctx, x.js, function, call) // it must not run when a worker comes up after all
		}
		if err != nil {
			x.log.Warn().Err(err).Str("call", call).Msg("end a call whose function does not start; trying again")
			continue
		}
		x.waiters.lookSoon(call)
	}
}

// reasons say why calls of a function wait; nil when workers take them, or nobody knows.
func (x starts) reasons(ctx context.Context, function queue.Function) []string {
	if _, ready := x.workers.count(function); ready > 0 {
		return nil
	}
	found, err := x.ask(ctx, function)
	if err != nil {
		return nil
	}
	said := func(reason string) bool { return strings.Contains(reason, found.Failure) }
	if found.Failures > 0 && !slices.ContainsFunc(found.Held, said) {
		return append(found.Held, fmt.Sprintf("%d starts failed in a row: %s", found.Failures, found.Failure))
	}
	return found.Held
}
