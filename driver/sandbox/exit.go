package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/runsc/boot"
)

// Exit is how the guest ended.
type Exit struct {
	// Code is the exit code, Signal the signal that killed it, or 0.
	Code   int
	Signal int
	// Lost is empty when the guest ended by itself or by a signal sent to it, and else says how it lost its sandbox. Code and
	// Signal are then those of the sandbox's process.
	Lost Loss
	// Detail is what a failing sandbox had to say, for the operator.
	Detail string
}

// Loss is how a sandbox ended before its guest did.
type Loss string

const (
	// LostKilled means that somebody killed its process: Kill, the kernel for want of memory, or an operator.
	LostKilled Loss = "killed"
	// LostFailed means that gVisor's kernel failed, or could get no memory or thread from the host.
	LostFailed Loss = "failed"
)

func (e Exit) String() string {
	how := fmt.Sprintf("exited with code %d", e.Code)
	if e.Signal != 0 {
		how = fmt.Sprintf("killed by signal %d (%s)", e.Signal, unix.SignalName(unix.Signal(e.Signal)))
	}
	switch {
	case e.Lost == LostFailed && e.Detail != "":
		return "lost its sandbox, which failed: " + e.Detail
	case e.Lost != "":
		return "lost its sandbox, which was " + how
	}
	return how
}

func newExit(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Signal: int(status.Signal())}
	}
	return Exit{Code: status.ExitStatus()}
}

// told is a sandbox's answer to how its guest ended.
type told struct {
	status unix.WaitStatus
	err    error
}

// listen begins to wait for the guest's end. It must happen as soon as the guest runs: asked later, a sandbox that has ended
// tells no signal apart from an exit code.
func (s *Sandbox) listen() {
	s.watching.Do(func() {
		go func() { // ends with the sandbox, for which Destroy waits
			status, err := s.ask()
			s.watch <- told{status, err}
		}()
	})
}

// listened waits until nobody listens.
func (s *Sandbox) listened() {
	s.watching.Do(func() { s.watch <- told{err: errors.New("the guest never ran")} })
	s.watch <- <-s.watch
}

// Wait waits until the guest or the whole sandbox ends. It may be called often, after Start or Restore.
func (s *Sandbox) Wait() (Exit, error) {
	s.listen()
	end := <-s.watch
	s.watch <- end // for whoever waits too
	// The process too: when it has ended, all that the guest wrote is in its streams.
	process, err := s.box.Wait(s.id)
	switch {
	case end.err == nil:
		return newExit(end.status), nil
	case err != nil:
		return Exit{}, fmt.Errorf("wait for sandbox: %w", err)
	}
	exit := newExit(process)
	switch words := lastWords(s.stateDir); {
	case exit.Signal != 0:
		exit.Lost = LostKilled
	case words != "":
		exit.Lost, exit.Detail = LostFailed, words
	}
	return exit, nil
}

// ask has the sandbox tell how its guest ended. It fails when the sandbox cannot: gVisor's own Wait hides that.
func (g *Guest) ask() (unix.WaitStatus, error) {
	var status unix.WaitStatus
	socket, err := os.OpenFile(g.box.GetControlSocketPath(), unix.O_PATH, 0)
	if err != nil {
		return 0, fmt.Errorf("find control socket: %w", err)
	}
	defer closeAll(socket)
	// By its descriptor: its path may be longer than an address may be.
	conn, err := client.ConnectTo(fmt.Sprintf("/proc/self/fd/%d", socket.Fd()))
	if err != nil {
		return 0, fmt.Errorf("connect to sandbox: %w", err)
	}
	defer func() { _ = conn.Close() }() // nothing is written through it
	if err := conn.Call(boot.ContMgrWait, &g.id, &status); err != nil {
		return 0, fmt.Errorf("wait for guest: %w", err)
	}
	return status, nil
}

// lastWords is the first line of what the sentry wrote when it died, without its stacks.
func lastWords(stateDir string) string {
	const enough = 1000
	file, err := os.Open(filepath.Join(stateDir, panicFile))
	if err != nil {
		return ""
	}
	defer closeAll(file)
	data := make([]byte, enough)
	n, _ := file.Read(data) // nothing read is nothing said
	line, _, _ := bytes.Cut(bytes.TrimSpace(data[:n]), []byte("\n"))
	return string(line)
}

// withLastWords adds to an error what the sentry said when it died of it.
func withLastWords(err error, stateDir string) error {
	if words := lastWords(stateDir); words != "" {
		return fmt.Errorf("%w (%s)", err, words)
	}
	return err
}
