package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// taskState is what Nomad keeps of a task for the next plugin.
type taskState struct {
	// StateDir is the task's directory; that of a supervisor made ahead is a link to its own.
	StateDir string
	Started  time.Time
	// Plain tasks have no handler: signals are for their guest.
	Plain bool
}

// task is one supervisor as the plugin knows it.
type task struct {
	config  *drivers.TaskConfig
	state   taskState
	starter *starter
	process *handoff.Process // nil when it ended before it was recovered
	log     zerolog.Logger
	// reap collects the supervisor when it is this process's child.
	reap func()

	ended chan struct{} // closed by wait

	mu     sync.Mutex
	result *drivers.ExitResult
	at     time.Time
}

func newTask(cfg *drivers.TaskConfig, state taskState, s *starter, process *handoff.Process, reap func()) *task {
	return &task{
		config: cfg, state: state, starter: s, process: process, reap: reap,
		log: s.log.With().Str("alloc", cfg.AllocID).Str("task", cfg.Name).Logger(), ended: make(chan struct{}),
	}
}

// recoverTask finds a task's process again.
func recoverTask(cfg *drivers.TaskConfig, state taskState, s *starter) (*task, error) {
	process, err := handoff.FindProcess(state.StateDir)
	switch {
	case err == nil, errors.Is(err, handoff.ErrGone): // the end of one that is gone is reported by wait
	case errors.Is(err, os.ErrNotExist):
		return nil, drivers.ErrTaskNotFound
	default:
		return nil, fmt.Errorf("recover task %s: %w", cfg.ID, err)
	}
	return newTask(cfg, state, s, process, func() {}), nil
}

// unit is the id of what the node lent to the task.
func (t *task) unit() string {
	if target, err := os.Readlink(t.state.StateDir); err == nil {
		return filepath.Base(target)
	}
	return filepath.Base(t.state.StateDir)
}

// wait waits for the supervisor's end and records it.
func (t *task) wait(ctx context.Context, emit func(*drivers.TaskConfig, string)) {
	if t.process != nil {
		if err := t.process.Wait(ctx); err != nil {
			return // the plugin ends; the supervisor goes on
		}
		t.reap()
	}
	result, reason := t.readExit()
	if reason != "" {
		emit(t.config, reason)
	}
	t.mu.Lock()
	t.result, t.at = result, time.Now()
	t.mu.Unlock()
	close(t.ended)
}

// readExit reads what the supervisor left. One that left nothing was killed.
func (t *task) readExit() (*drivers.ExitResult, string) {
	exit, err := handoff.ReadExit(t.state.StateDir)
	if errors.Is(err, handoff.ErrNoExit) {
		reason := "the worker was killed; calls it ran are run by others"
		if t.state.Plain {
			reason = "the task's supervisor was killed"
		}
		return &drivers.ExitResult{ExitCode: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)}, reason
	}
	if err != nil {
		return &drivers.ExitResult{ExitCode: 1, Err: err}, err.Error()
	}
	result := &drivers.ExitResult{ExitCode: exit.Code, Signal: exit.Signal, OOMKilled: exit.OOM}
	if exit.OOM {
		result.Err = errors.New("OOM Killed") // as docker says it: Nomad shows people an error, and not the flag
	}
	return result, exit.Reason
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

// startWait is how long somebody who asks something of a task that was just started may have to wait until its guest is there.
const startWait = 10 * time.Second

// listening waits until the supervisor takes requests. StartTask does not: most tasks are asked nothing.
func (t *task) listening(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startWait, fmt.Errorf("task %s takes longer than %s to start", t.config.ID, startWait))
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if handoff.Listens(ctx, t.state.StateDir) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-t.ended:
			return fmt.Errorf("task %s has ended", t.config.ID)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// signal sends a signal where it is meant to go: a plain task's to its guest; of a worker's, those that ask it to end drain it.
func (t *task) signal(ctx context.Context, signal unix.Signal) error {
	if !t.running() {
		return nil
	}
	if signal == unix.SIGKILL {
		return t.kill(ctx)
	}
	if !t.state.Plain && (signal == unix.SIGTERM || signal == unix.SIGINT) {
		return t.signalSupervisor(unix.SIGTERM)
	}
	if _, err := handoff.Ask(ctx, t.state.StateDir, handoff.Request{Signal: int(signal)}, nil); err != nil {
		return fmt.Errorf("signal task %s: %w", t.config.ID, err)
	}
	return nil
}

func (t *task) signalSupervisor(signal unix.Signal) error {
	if t.process == nil {
		return nil // it ended
	}
	if err := t.process.Signal(signal); err != nil && !errors.Is(err, handoff.ErrGone) {
		return err
	}
	return nil
}

// killWait is how long a supervisor may take to say that its guest was killed.
const killWait = 2 * time.Second

// kill ends a plain task's guest, whose supervisor then says so, and a worker with its supervisor: its calls are to go to others,
// not to end in an error.
func (t *task) kill(ctx context.Context) error {
	if t.state.Plain {
		ctx, cancel := context.WithTimeout(ctx, killWait)
		defer cancel()
		if _, err := handoff.Ask(ctx, t.state.StateDir, handoff.Request{Signal: int(unix.SIGKILL)}, nil); err == nil {
			select {
			case <-t.ended:
				return nil
			case <-ctx.Done():
			}
		}
	}
	return t.signalSupervisor(unix.SIGKILL)
}

// stop asks the task to end, and ends it when that takes longer than the timeout.
func (t *task) stop(ctx context.Context, timeout time.Duration, signal unix.Signal) error {
	if err := t.signal(ctx, signal); err != nil {
		// A supervisor that does not listen yet passes the wish on by itself.
		if err := t.signalSupervisor(unix.SIGTERM); err != nil {
			return err
		}
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
	t.log.Warn().Dur("timeout", timeout).Msg("task did not end in time; killing it")
	if err := t.kill(ctx); err != nil {
		return err
	}
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remove deletes the task's files and gives back what it was lent.
func (t *task) remove(ctx context.Context) error {
	if t.process != nil {
		t.process.Close()
	}
	return t.starter.clear(ctx, t.state.StateDir)
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
