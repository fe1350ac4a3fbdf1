package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// taskState is what Nomad keeps of a task for the next plugin.
type taskState struct {
	StateDir string
	Started  time.Time
}

// task is one worker as the plugin knows it.
type task struct {
	config  *drivers.TaskConfig
	state   taskState
	process *handoff.Process // nil when it ended before it was recovered
	log     zerolog.Logger
	// reap collects the worker when it is this process's child.
	reap func()

	ended chan struct{} // closed by wait
	usage usage

	mu     sync.Mutex
	result *drivers.ExitResult
	at     time.Time
}

// recoverTask finds a task's process again.
func recoverTask(cfg *drivers.TaskConfig, state taskState, log zerolog.Logger) (*task, error) {
	t := &task{config: cfg, state: state, log: log, reap: func() {}, ended: make(chan struct{})}
	process, err := handoff.FindProcess(state.StateDir)
	switch {
	case err == nil:
		t.process = process
	case errors.Is(err, handoff.ErrGone): // its end is reported by wait
	case errors.Is(err, os.ErrNotExist):
		return nil, drivers.ErrTaskNotFound
	default:
		return nil, fmt.Errorf("recover task %s: %w", cfg.ID, err)
	}
	return t, nil
}

// wait waits for the worker's end and records it.
func (t *task) wait(ctx context.Context, emit func(*task, string)) {
	if t.process != nil {
		if err := t.process.Wait(ctx); err != nil {
			return // the plugin ends; the worker goes on
		}
		t.reap()
	}
	result, reason := t.readExit()
	if reason != "" {
		emit(t, reason)
	}
	t.mu.Lock()
	t.result, t.at = result, time.Now()
	t.mu.Unlock()
	close(t.ended)
}

// readExit reads what the worker left. One that left nothing was killed.
func (t *task) readExit() (*drivers.ExitResult, string) {
	exit, err := handoff.ReadExit(t.state.StateDir)
	if errors.Is(err, handoff.ErrNoExit) {
		return &drivers.ExitResult{ExitCode: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)}, "the worker was killed; calls it ran are run by others"
	}
	if err != nil {
		return &drivers.ExitResult{ExitCode: 1, Err: err}, err.Error()
	}
	return &drivers.ExitResult{ExitCode: exit.Code, Signal: exit.Signal, OOMKilled: exit.OOM}, exit.Reason
}

func (t *task) running() bool {
	select {
	case <-t.ended:
		return false
	default:
		return true
	}
}

func (t *task) exit() *drivers.ExitResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.result.Copy()
}

func (t *task) signal(signal unix.Signal) error {
	if t.process == nil {
		return nil // it ended
	}
	if err := t.process.Signal(signal); err != nil && !errors.Is(err, handoff.ErrGone) {
		return err
	}
	return nil
}

func (t *task) kill() error { return t.signal(unix.SIGKILL) }

// stop drains the worker, and kills it when that takes longer than the timeout.
func (t *task) stop(ctx context.Context, timeout time.Duration) error {
	if err := t.signal(unix.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-t.ended:
		return nil
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	t.log.Warn().Str("alloc", t.config.AllocID).Dur("timeout", timeout).Msg("worker did not drain in time; killing it, its calls go to others")
	if err := t.kill(); err != nil {
		return err
	}
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remove deletes the task's files.
func (t *task) remove() error {
	if t.process != nil {
		t.process.Close()
	}
	if err := os.RemoveAll(t.state.StateDir); err != nil {
		return fmt.Errorf("remove task %s: %w", t.config.ID, err)
	}
	return nil
}

func (t *task) status() *drivers.TaskStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	status := &drivers.TaskStatus{
		ID: t.config.ID, Name: t.config.Name, State: drivers.TaskStateRunning, StartedAt: t.state.Started,
	}
	if t.result != nil {
		status.State, status.CompletedAt, status.ExitResult = drivers.TaskStateExited, t.at, t.result.Copy()
	}
	return status
}
