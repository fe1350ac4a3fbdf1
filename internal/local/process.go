//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// Back-off of restarts: at once after a long life, slower while it keeps dying young.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
	longLife   = 10 * time.Second
)

// command is a component's process.
type command struct {
	name string
	path string
	args []string
	env  []string
	// stopSignal asks it to stop; grace is how long it may take before it is killed.
	stopSignal syscall.Signal
	grace      time.Duration
}

// process keeps a command running: it starts it again whenever it ends, until Stop.
type process struct {
	command command
	logPath string
	log     zerolog.Logger

	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	pid      int
	restarts int
}

func startProcess(ctx context.Context, cmd command, logDir string, log zerolog.Logger) *process {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &process{
		command: cmd, cancel: cancel,
		logPath: filepath.Join(logDir, cmd.name+".log"),
		log:     log.With().Str("process", cmd.name).Logger(),
	}
	p.done.Go(func() { p.keep(ctx) })
	return p
}

// keep runs the command over and over. Its thread is locked: the kernel ends the child when the thread that made it ends
// (Pdeathsig), so that killing `freshet up` leaves none of them behind.
func (p *process) keep(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	backoff := minBackoff
	for {
		began := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > longLife {
			backoff = minBackoff
		}
		p.log.Warn().Err(err).Str("log", p.logPath).Dur("restart_in", backoff).Msg("component ended; starting it again")
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return
		}
		backoff = min(2*backoff, maxBackoff)
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

// once runs the command until it ends or the context asks it to stop.
func (p *process) once(ctx context.Context) error {
	out, err := os.OpenFile(p.logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.command.name, err)
	}
	defer func() { _ = out.Close() }() // the child holds its own descriptor
	cmd := exec.CommandContext(ctx, p.command.path, p.command.args...)
	cmd.Env = append(os.Environ(), p.command.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(p.command.stopSignal) }
	cmd.WaitDelay = p.command.grace
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.command.name, err)
	}
	p.setPID(cmd.Process.Pid)
	defer p.setPID(0)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run %s: %w", p.command.name, err)
	}
	return errors.New("it exited with 0")
}

func (p *process) setPID(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = pid
}

// stop asks the command to end and waits until it has.
func (p *process) stop() {
	p.cancel()
	p.done.Wait()
}

// life is a component's state.
type life struct{ pid, restarts int }

func (p *process) status() life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return life{pid: p.pid, restarts: p.restarts}
}
