package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// orphans ends tasks that nobody asks about: those of an agent that lost its state, which will never stop them. One that a plugin does
// not hear of for the grace is drained, like one that Nomad stops, and then removed.
type orphans struct {
	// grace is how long after it is first seen a task may be claimed: an agent that comes back names its tasks within seconds.
	grace time.Duration
	// list names the directories of tasks; claimed tells whether Nomad knows the task of one.
	list    func() []string
	claimed func(dir string) bool
	// drain asks a task to end and tells how long that may take; remove ends what is left and gives back what it was lent.
	drain  func(dir string) (time.Duration, error)
	remove func(ctx context.Context, dir string) error
	// running tells whether a task has not ended.
	running func(dir string) bool
	log     zerolog.Logger

	known map[string]orphan
}

// orphan is a task that nobody has claimed yet.
type orphan struct {
	since time.Time
	// endBy is when its drain is over; zero before it is asked to.
	endBy time.Time
}

// look goes through the tasks once. It is called by one goroutine, now and then.
func (o *orphans) look(ctx context.Context, now time.Time) error {
	unclaimed := make(map[string]orphan)
	var err error
	for _, dir := range o.list() {
		if o.claimed(dir) {
			continue
		}
		found, ok := o.known[dir]
		if !ok {
			found.since = now
		}
		gone := false
		if now.Sub(found.since) >= o.grace {
			var failed error
			gone, failed = o.end(ctx, dir, &found, now)
			err = errors.Join(err, failed)
		}
		if !gone {
			unclaimed[dir] = found
		}
	}
	o.known = unclaimed
	return err
}

// end brings an orphan one step nearer to its end; true when it is gone.
func (o *orphans) end(ctx context.Context, dir string, found *orphan, now time.Time) (bool, error) {
	if o.running(dir) {
		if found.endBy.IsZero() {
			limit, err := o.drain(dir)
			if err != nil {
				return false, err
			}
			found.endBy = now.Add(limit)
			o.log.Warn().Str("dir", dir).Dur("grace", o.grace).Dur("drain", limit).Msg("no agent asked for the task: draining it")
		}
		if now.Before(found.endBy) {
			return false, nil
		}
		o.log.Warn().Str("dir", dir).Msg("the task that nobody asked for does not end: killing it")
	}
	if err := o.remove(ctx, dir); err != nil {
		return false, err
	}
	o.log.Info().Str("dir", dir).Msg("removed a task that nobody asked for")
	return true, nil
}

// drainPlain is how long a task without a handler may take to end after SIGTERM: its agent's kill_timeout is lost.
const drainPlain = 30 * time.Second

// drainTask asks the task's supervisor to end, and tells how long that may take: a worker finishes its calls.
func drainTask(dir string) (time.Duration, error) {
	process, err := handoff.FindProcess(dir)
	if errors.Is(err, handoff.ErrGone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer process.Close()
	if err := process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, handoff.ErrGone) {
		return 0, fmt.Errorf("drain task: %w", err)
	}
	limit := drainPlain
	if task, err := handoff.ReadTask(filepath.Join(dir, handoff.TaskFile)); err == nil && task.Config.Handler != nil {
		limit = max(limit, task.Config.Timeout.Std())
	}
	return limit, nil
}
