package storm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/internal/netnstest"
)

// rest is how long a process stays away that ended, as whatever starts services takes its time too.
const rest = 300 * time.Millisecond

// kept is a process that is started again whenever it ends.
type kept struct {
	name string
	// place is the machine that it runs on; nil is the tests' own.
	place *netnstest.Namespace
	// command makes the command anew for each start.
	command func() *exec.Cmd
	log     string

	stopped chan struct{}
	done    sync.WaitGroup

	mu     sync.Mutex
	pid    int
	away   time.Time // it stays away until then
	starts int
}

// keep starts the process and keeps it running until stop.
func (k *kept) keep() error {
	k.stopped = make(chan struct{})
	began := make(chan error, 1)
	k.done.Go(func() {
		loop := func() error { k.loop(began); return nil }
		if k.place == nil {
			_ = netnstest.OnThread(loop)
			return
		}
		if err := k.place.Do(loop); err != nil {
			began <- err
		}
	})
	return <-began
}

// loop runs on a thread of its own: the processes end with it.
func (k *kept) loop(began chan<- error) {
	for {
		cmd, err := k.once()
		select {
		case began <- err:
		default:
		}
		if err == nil {
			_ = cmd.Wait() // it was killed, or asked to end
		}
		k.setPID(0)
		k.mu.Lock()
		pause := max(rest, time.Until(k.away))
		k.mu.Unlock()
		select {
		case <-k.stopped:
			return
		case <-time.After(pause):
		}
	}
}

func (k *kept) once() (*exec.Cmd, error) {
	log, err := os.OpenFile(k.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own descriptor
	cmd := k.command()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.stopped:
		return nil, errors.New("stopped")
	default:
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	k.pid = cmd.Process.Pid
	k.starts++
	return cmd, nil
}

func (k *kept) setPID(pid int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pid = pid
}

// PID is the process's; 0 while there is none.
func (k *kept) PID() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pid
}

// kill ends the process, which comes back after the time.
func (k *kept) kill(away time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = time.Now().Add(away)
	if k.pid != 0 {
		_ = syscall.Kill(k.pid, syscall.SIGKILL) // it may have ended
	}
}

// stop ends the process for good, by the signal.
func (k *kept) stop(signal syscall.Signal) {
	k.mu.Lock()
	close(k.stopped)
	if k.pid != 0 {
		_ = syscall.Kill(k.pid, syscall.SIGCONT) // it may be stopped
		_ = syscall.Kill(k.pid, signal)
	}
	k.mu.Unlock()
	k.done.Wait()
}
