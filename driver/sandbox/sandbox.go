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
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/container"
)

// Sandbox is a created sandbox. Start or Restore it once; Destroy it always.
type Sandbox struct {
	// Guest is what runs in it.
	*Guest
	// Stdin, Stdout and Stderr are the host's ends of the guest's standard streams. The owner reads and closes them. With a
	// terminal Stderr is nil, and reading Stdout ends with EIO.
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File

	conf      *config.Config
	group     map[string]string
	container *container.Container
	stateDir  string

	watching sync.Once
	watch    chan told // holds what the sandbox told of its guest's end

	killing sync.Mutex
	pidfd   int // of the sentry; -1 after Destroy

	destroy sync.Once
	failed  error // of destroy
}

// Create makes an empty sandbox: the sentry and the gofer run, the guest does not. It takes most of a start's time, and
// what the guest will be must be known only in so far as Config says.
func Create(cfg Config, log zerolog.Logger) (*Sandbox, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	configure(cfg.Runsc, cfg.DebugDir != "", log)
	conf, err := newConfig(cfg)
	if err != nil {
		return nil, err
	}
	if err := raiseLoopback(cfg.NetNS); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.SharedDir, 0o711); err != nil {
		return nil, fmt.Errorf("make shared directory: %w", err)
	}
	made, err := create(cfg, conf)
	if err != nil {
		err = withLastWords(fmt.Errorf("create sandbox: %w", err), cfg.StateDir)
		return nil, errors.Join(err, removeBundle(cfg.StateDir))
	}
	return made, nil
}

// create makes the bundle and its sandbox.
func create(cfg Config, conf *config.Config) (made *Sandbox, failed error) {
	if err := writeFiles(cfg); err != nil {
		return nil, err
	}
	root, remove, err := completeRoot(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { failed = errors.Join(failed, remove()) }()
	spec, err := newSpec(cfg, root)
	if err != nil {
		return nil, err
	}
	if err := writeBundle(cfg.StateDir, spec); err != nil {
		return nil, err
	}
	streams, err := openStreams(cfg.Terminal)
	if err != nil {
		return nil, err
	}
	defer streams.closeGuest()
	container, err := streams.during(func() (*container.Container, error) {
		return container.New(conf, container.Args{ID: cfg.ID, Spec: spec, BundleDir: cfg.StateDir, Attached: true})
	})
	if err != nil {
		streams.closeHost()
		return nil, err
	}
	pidfd, err := unix.PidfdOpen(container.SandboxPid(), 0)
	if err != nil {
		streams.closeHost()
		return nil, errors.Join(fmt.Errorf("watch sandbox: %w", err), container.Destroy())
	}
	return &Sandbox{
		Guest: &Guest{id: cfg.ID, box: container.Sandbox, spec: spec},
		Stdin: streams.stdin.host, Stdout: streams.stdout.host, Stderr: streams.stderr.host,
		conf: conf, group: cfg.Group, container: container, stateDir: cfg.StateDir, pidfd: pidfd, watch: make(chan told, 1),
	}, nil
}

// Start starts the guest from its beginning. A program that is not there is ErrNotFound, one that is none ErrNotExecutable.
func (s *Sandbox) Start() error {
	if err := s.container.Start(s.conf); err != nil {
		return withLastWords(fmt.Errorf("start sandbox: %w", startError(err)), s.stateDir)
	}
	s.listen()
	_ = s.writeGroup(s.group) // fails for a guest that has ended already, as short ones have
	return nil
}

// Resize gives a guest that has a terminal a window of another size, and tells it so.
func (s *Sandbox) Resize(size WindowSize) error {
	if err := resize(s.Stdout, size); err != nil {
		return err
	}
	return s.signalTerminal(0, unix.SIGWINCH)
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
		defer s.listened()
		if err := s.container.Destroy(); err != nil {
			s.failed = fmt.Errorf("destroy sandbox: %w", err)
		}
		if err := removeBundle(s.stateDir); err != nil && s.failed == nil {
			s.failed = fmt.Errorf("destroy sandbox: %w", err)
		}
	})
	return s.failed
}
