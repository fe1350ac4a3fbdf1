// Package process starts and reaps the processes of a sandbox whose first process is ours. All waiting happens in one place:
// whoever reaps orphans would otherwise take the exit codes of children from those who wait for them.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Command describes a process to start. It becomes the leader of a session and a process group of its own.
type Command struct {
	// Path is the program's file; Args its command line, with Args[0].
	Path string
	Args []string
	// Env is the whole environment, as NAME=value.
	Env []string
	// Dir is the working directory; empty means this process's.
	Dir string
	// User is who it runs as; nil means this process's user.
	User *syscall.Credential
	// Stdin, Stdout and Stderr are all that it inherits. They stay the caller's to close.
	Stdin, Stdout, Stderr *os.File
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code, Signal the signal that killed it, or 0.
	Code   int
	Signal syscall.Signal
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("was killed by signal %d (%s)", int(e.Signal), unix.SignalName(e.Signal))
	}
	return fmt.Sprintf("exited with code %d", e.Code)
}

// Child is a started process.
type Child struct {
	table *Table
	pid   int
	done  chan struct{}
	exit  Exit
}

// PID is the process's number, and its group's.
func (c *Child) PID() int { return c.pid }

// Done is closed when the process ended. What was left of its group is killed by then.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit tells how the process ended; it is only valid after Done.
func (c *Child) Exit() Exit { return c.exit }

// Signal signals the process and its group. It does nothing when the process has ended.
func (c *Child) Signal(sig syscall.Signal) {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	if c.table.children[c.pid] == c {
		_ = unix.Kill(-c.pid, sig) // not yet reaped, so the number is its own; a group that is gone needs no signal
	}
}

// Table holds the processes that were started and did not end yet, and reaps those and the orphans. A program has one at most.
type Table struct {
	ended   chan os.Signal
	stop    chan struct{}
	reaping sync.WaitGroup

	mu       sync.Mutex
	children map[int]*Child
	closed   bool
}

// ErrClosed is the error of Start after Close.
var ErrClosed = errors.New("everything ends")

// Open makes this process the one that inherits orphans, and begins to reap.
func Open() (*Table, error) {
	if os.Getpid() != 1 { // the first process of a sandbox inherits them anyway
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("inherit orphans: %w", err)
		}
	}
	t := &Table{ended: make(chan os.Signal, 1), stop: make(chan struct{}), children: make(map[int]*Child)}
	signal.Notify(t.ended, unix.SIGCHLD)
	t.reaping.Go(t.run)
	return t, nil
}

// Close kills all processes, and returns when they are reaped.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	for _, child := range t.running() {
		child.Signal(unix.SIGKILL)
		<-child.Done()
	}
	t.Sweep(func(int) bool { return false })
	signal.Stop(t.ended)
	close(t.stop)
	t.reaping.Wait()
}

// Signal passes a signal on to all processes that were started, and their groups.
func (t *Table) Signal(sig syscall.Signal) {
	for _, child := range t.running() {
		child.Signal(sig)
	}
}

func (t *Table) running() []*Child {
	t.mu.Lock()
	defer t.mu.Unlock()
	children := make([]*Child, 0, len(t.children))
	for _, child := range t.children {
		children = append(children, child)
	}
	return children
}

// Start starts a process.
func (t *Table) Start(cmd Command) (*Child, error) {
	t.mu.Lock()
	defer t.mu.Unlock() // over the fork, so that no child can end before it is known
	if t.closed {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, ErrClosed)
	}
	pid, err := syscall.ForkExec(cmd.Path, cmd.Args, &syscall.ProcAttr{
		Dir: cmd.Dir, Env: cmd.Env,
		Files: []uintptr{cmd.Stdin.Fd(), cmd.Stdout.Fd(), cmd.Stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: cmd.User},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, explain(err, cmd))
	}
	child := &Child{table: t, pid: pid, done: make(chan struct{})}
	t.children[pid] = child
	return child, nil
}

// explain says what the system's error number does not.
func explain(err error, cmd Command) error {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%w: it is no program for this machine, or a script without #! in its first line", err)
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("%w: pass large values on standard input, not as arguments", err)
	case errors.Is(err, unix.EPERM) && cmd.User != nil:
		return fmt.Errorf("%w: to run it as user %d, the sandbox must start as root with the capabilities SETUID and SETGID", err, cmd.User.Uid)
	}
	return err
}

func (t *Table) run() {
	for {
		select {
		case <-t.ended:
			t.reap()
		case <-t.stop:
			return
		}
	}
}

// reap takes all processes that ended. The group of one that was started here is killed first: while its leader is not
// reaped, the group's number cannot be another one's.
func (t *Table) reap() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		pid, err := anyEnded()
		if err != nil || pid == 0 {
			return
		}
		child := t.children[pid]
		if child != nil {
			_ = unix.Kill(-pid, unix.SIGKILL) // an empty group needs none
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			continue // interrupted: it still shows as ended
		}
		if child == nil {
			continue
		}
		delete(t.children, pid)
		child.exit = Exit{Code: status.ExitStatus()}
		if status.Signaled() {
			child.exit = Exit{Signal: status.Signal()}
		}
		close(child.done)
	}
}

// pidOffset is where a siginfo of SIGCHLD holds the process's number, on all 64-bit Linux.
const pidOffset = 16

// anyEnded names a child that ended, without reaping it; 0 when none did, ECHILD when there is no child at all.
func anyEnded() (int, error) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return 0, err
		}
	}
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), pidOffset))), nil // #nosec G103 -- x/sys names no field for it
}
