// Package sandbox controls a gVisor sandbox from within this process, through gVisor's own Go packages: that saves the 30
// to 50 ms that each exec of the runsc program costs. The pinned runsc binary only serves as the program of the sentry and
// the gofer.
//
// A process drives one sandbox at a time: gVisor hands its own standard streams to the sandbox and keeps global state, so
// the supervisor of each allocation is a process of its own.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/container"
)

// Config describes a sandbox.
type Config struct {
	// ID names it within StateDir; letters, digits, '-' and '_'.
	ID string
	// Runsc is the path of the pinned runsc binary.
	Runsc string
	// Platform is how system calls are intercepted: "systrap" (default) or "kvm".
	Platform string
	// StateDir is a directory of this sandbox's own, for gVisor's state files and the OCI bundle.
	StateDir string
	// SharedDir is a directory of the node's, the same for all sandboxes: gVisor keeps an empty network namespace mounted
	// there, so that not each start must make one.
	SharedDir string
	// Rootfs is the guest's root on the host; it is not written to.
	Rootfs string
	// Args is the command line; Args[0] is a path in the rootfs.
	Args []string
	// Env is the guest's environment, as NAME=value.
	Env []string
	// Mounts are host directories and files that the guest sees.
	Mounts []Mount
	// DebugDir, when set, receives the debug logs of sentry and gofer; they are large and slow.
	DebugDir string
}

// Mount is a host directory or file in the guest.
type Mount struct {
	Source, Target string
	Writable       bool
}

// Sandbox is a created sandbox. Start or Restore it once; Destroy it always.
type Sandbox struct {
	// Stdin, Stdout and Stderr are the host's ends of the guest's standard streams. The owner reads and closes them.
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File

	conf      *config.Config
	container *container.Container
	stateDir  string

	killing sync.Mutex
	pidfd   int // of the sentry; -1 after Destroy

	destroy sync.Once
	failed  error // of destroy
}

// Create makes an empty sandbox: the sentry and the gofer run, the guest does not. It takes most of a start's time, and
// what the guest will be must be known only in so far as Config says.
func Create(cfg Config, log zerolog.Logger) (sandbox *Sandbox, err error) {
	if err := configure(cfg, log); err != nil {
		return nil, err
	}
	conf, err := newConfig(cfg)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.SharedDir, 0o711); err != nil {
		return nil, fmt.Errorf("make shared directory: %w", err)
	}
	spec := newSpec(cfg)
	if err := writeBundle(cfg.StateDir, spec); err != nil {
		return nil, err
	}
	streams, err := openStreams()
	if err != nil {
		return nil, err
	}
	defer streams.closeGuest()
	made, err := streams.during(func() (*container.Container, error) {
		return container.New(conf, container.Args{ID: cfg.ID, Spec: spec, BundleDir: cfg.StateDir, Attached: true})
	})
	if err != nil {
		streams.closeHost()
		return nil, fmt.Errorf("create sandbox: %w", err)
	}
	pidfd, err := unix.PidfdOpen(made.SandboxPid(), 0)
	if err != nil {
		streams.closeHost()
		return nil, errors.Join(fmt.Errorf("watch sandbox: %w", err), made.Destroy())
	}
	return &Sandbox{
		Stdin: streams.stdin.host, Stdout: streams.stdout.host, Stderr: streams.stderr.host,
		conf: conf, container: made, stateDir: cfg.StateDir, pidfd: pidfd,
	}, nil
}

// Start starts the guest from its beginning.
func (s *Sandbox) Start() error {
	if err := s.container.Start(s.conf); err != nil {
		return fmt.Errorf("start sandbox: %w", err)
	}
	return nil
}

// Exit is how the guest ended.
type Exit struct {
	// Code is the exit code, Signal the signal that killed it, or 0.
	Code   int
	Signal int
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("killed by signal %d (%s)", e.Signal, unix.SignalName(unix.Signal(e.Signal)))
	}
	return fmt.Sprintf("exited with code %d", e.Code)
}

// Wait waits until the guest or the whole sandbox ends.
func (s *Sandbox) Wait() (Exit, error) {
	status, err := s.container.Wait()
	if err != nil {
		return Exit{}, fmt.Errorf("wait for sandbox: %w", err)
	}
	if status.Signaled() {
		return Exit{Signal: int(status.Signal())}, nil
	}
	return Exit{Code: status.ExitStatus()}, nil
}

// PIDs are the processes on the host: the sentry's and the gofer's.
func (s *Sandbox) PIDs() []int {
	return []int{s.container.SandboxPid(), s.container.GoferPid.Load()}
}

// Kill ends the guest and the sandbox at once. It may be called at any time before Destroy returned. It goes by a pidfd: by
// number it could hit another process, and gVisor's number of a sandbox that ended is -1, which means everybody to kill(2).
func (s *Sandbox) Kill() error {
	s.killing.Lock()
	defer s.killing.Unlock()
	if s.pidfd < 0 {
		return nil
	}
	err := unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill sandbox: %w", err)
	}
	return nil
}

// forget closes the pidfd.
func (s *Sandbox) forget() {
	s.killing.Lock()
	defer s.killing.Unlock()
	_ = unix.Close(s.pidfd) // nothing is written through it
	s.pidfd = -1
}

// Destroy kills what runs and removes the sandbox's files. It may be called often; later calls return what the first did.
func (s *Sandbox) Destroy() error {
	s.destroy.Do(func() {
		defer s.forget()
		if err := s.container.Destroy(); err != nil {
			s.failed = fmt.Errorf("destroy sandbox: %w", err)
		}
		if err := os.Remove(filepath.Join(s.stateDir, bundleFile)); err != nil && s.failed == nil {
			s.failed = fmt.Errorf("destroy sandbox: %w", err)
		}
	})
	return s.failed
}
