package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/container"
)

// pipe is one standard stream.
type pipe struct{ host, guest *os.File }

// streams are the guest's three standard streams.
type streams struct{ stdin, stdout, stderr pipe }

func openStreams(size *WindowSize) (*streams, error) {
	if size != nil {
		return openTerminalStreams(*size)
	}
	s := &streams{}
	for _, p := range []struct {
		pipe   *pipe
		toHost bool
	}{{&s.stdin, false}, {&s.stdout, true}, {&s.stderr, true}} {
		read, write, err := os.Pipe()
		if err != nil {
			s.closeGuest()
			s.closeHost()
			return nil, fmt.Errorf("make a stream to the guest: %w", err)
		}
		if p.toHost {
			*p.pipe = pipe{host: read, guest: write}
		} else {
			*p.pipe = pipe{host: write, guest: read}
		}
	}
	return s, nil
}

// openTerminalStreams makes all three streams one terminal, whose other end is both the host's stdin and stdout.
func openTerminalStreams(size WindowSize) (*streams, error) {
	tty, err := openTerminal(size)
	if err != nil {
		return nil, err
	}
	input := -1
	err = withDescriptor(tty.host, func(fd int) (err error) {
		input, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		closeAll(tty.host, tty.guest)
		return nil, fmt.Errorf("make a stream to the guest: %w", err)
	}
	return &streams{
		stdin:  pipe{host: os.NewFile(uintptr(input), "terminal"), guest: tty.guest},
		stdout: pipe{host: tty.host, guest: tty.guest},
		stderr: pipe{guest: tty.guest},
	}, nil
}

// during runs create while the process's standard streams are the guest's: gVisor takes them from there, for a cold start
// as for a restore, which maps them onto the descriptors that the frozen guest had.
func (s *streams) during(create func() (*container.Container, error)) (*container.Container, error) {
	stdin, stdout, stderr := os.Stdin, os.Stdout, os.Stderr
	defer func() { os.Stdin, os.Stdout, os.Stderr = stdin, stdout, stderr }()
	os.Stdin, os.Stdout, os.Stderr = s.stdin.guest, s.stdout.guest, s.stderr.guest
	return create()
}

// closeGuest closes the guest's ends here: the sandbox has its own, and the host must see their end.
func (s *streams) closeGuest() {
	closeAll(s.stdin.guest, s.stdout.guest, s.stderr.guest)
}

func (s *streams) closeHost() {
	closeAll(s.stdin.host, s.stdout.host, s.stderr.host)
}

func closeAll(files ...*os.File) {
	for _, file := range files {
		_ = file.Close() // a pipe's close cannot lose data; a nil file's error is nothing
	}
}
