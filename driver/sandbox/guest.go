package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/container"
	"gvisor.dev/gvisor/runsc/sandbox"
)

// Why a program could not be started. The shell's exit codes for them are 127 and 126.
var (
	ErrNotFound      = errors.New("there is no such program in the sandbox")
	ErrNotExecutable = errors.New("this program cannot be executed in the sandbox")
)

// startError finds the reason in what the sandbox wrote: errors come from there as texts.
func startError(err error) error {
	text := err.Error()
	for _, known := range []struct {
		text  string
		cause error
	}{
		{unix.ENOENT.Error(), ErrNotFound},
		{unix.ENOTDIR.Error(), ErrNotFound},
		{unix.EACCES.Error(), ErrNotExecutable},
		{unix.ENOEXEC.Error(), ErrNotExecutable},
	} {
		if strings.HasSuffix(text, known.text) {
			return fmt.Errorf("%w: %w", known.cause, err)
		}
	}
	return err
}

// Guest is what runs in a sandbox. Its methods may be called at once from several goroutines, and from other processes than the
// sandbox's owner: each is a message to the sandbox.
type Guest struct {
	id   string
	box  *sandbox.Sandbox
	spec *specs.Spec
}

// Attach finds the guest of a sandbox that another process owns, by the StateDir and ID that it was created with. How it ends
// only the owner learns.
func Attach(stateDir, id string, log zerolog.Logger) (*Guest, error) {
	configure("", false, log)
	found, err := container.Load(stateDir, container.FullID{SandboxID: id, ContainerID: id}, container.LoadOpts{Exact: true, SkipCheck: true})
	if err != nil {
		return nil, fmt.Errorf("attach to sandbox: %w", err)
	}
	return &Guest{id: id, box: found.Sandbox, spec: found.Spec}, nil
}

// Signal sends a signal to the guest's first process.
func (g *Guest) Signal(sig unix.Signal) error {
	if err := g.box.SignalContainer(g.id, sig, false); err != nil {
		return fmt.Errorf("signal guest: %w", err)
	}
	return nil
}

// SignalAll sends a signal to all processes of the guest.
func (g *Guest) SignalAll(sig unix.Signal) error {
	if err := g.box.SignalContainer(g.id, sig, true); err != nil {
		return fmt.Errorf("signal all processes of the guest: %w", err)
	}
	return nil
}

// signalTerminal sends a signal to the processes in the foreground of a terminal: that of the process, or of the guest's first
// one where pid is 0.
func (g *Guest) signalTerminal(pid int32, sig unix.Signal) error {
	if err := g.box.SignalProcess(g.id, pid, sig, true); err != nil {
		return fmt.Errorf("signal terminal: %w", err)
	}
	return nil
}

// Stats is what the guest uses by gVisor's own account. What the sandbox costs the host is in its cgroup.
type Stats struct {
	// CPU is the time that the guest's processes ran, since the sandbox was made or thawed.
	CPU time.Duration
	// Memory is in bytes, what the guest wrote to memory-backed file systems among it.
	Memory uint64
	// Processes is how many there are.
	Processes uint64
}

// Stats asks for the guest's use.
func (g *Guest) Stats() (Stats, error) {
	event, err := g.box.Event(g.id)
	if err != nil {
		return Stats{}, fmt.Errorf("read guest's use: %w", err)
	}
	return Stats{
		CPU:       time.Duration(event.ContainerUsage[g.id]),
		Memory:    event.Event.Data.Memory.Usage.Usage,
		Processes: event.Event.Data.Pids.Current,
	}, nil
}
