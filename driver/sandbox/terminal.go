package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/control"
)

// terminal is a pseudoterminal of the host's: the guest has one end, the host the other.
type terminal struct{ host, guest *os.File }

func openTerminal(size WindowSize) (*terminal, error) {
	host, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open terminal: %w", err)
	}
	t := &terminal{host: os.NewFile(uintptr(host), "terminal")}
	if err := unix.IoctlSetPointerInt(host, unix.TIOCSPTLCK, 0); err != nil {
		closeAll(t.host)
		return nil, fmt.Errorf("unlock terminal: %w", err)
	}
	guest, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(host), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		closeAll(t.host)
		return nil, fmt.Errorf("open terminal's other end: %w", errno)
	}
	t.guest = os.NewFile(guest, "terminal's other end")
	if err := resize(t.host, size); err != nil {
		closeAll(t.host, t.guest)
		return nil, err
	}
	return t, nil
}

// withDescriptor runs an operation on a file's descriptor without a change to how the file blocks.
func withDescriptor(file *os.File, operation func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = operation(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func resize(host *os.File, size WindowSize) error {
	err := withDescriptor(host, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
	if err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}

// execInTerminal runs a process on a terminal and relays between that and the caller's streams.
func (g *Guest) execInTerminal(ctx context.Context, cfg ExecConfig, args *control.ExecArgs) (Exit, error) {
	tty, err := openTerminal(*cfg.Terminal)
	if err != nil {
		return Exit{}, fmt.Errorf("exec in sandbox: %w", err)
	}
	defer closeAll(tty.host)
	pid, err := g.begin(args, [3]*os.File{tty.guest, tty.guest, tty.guest})
	closeAll(tty.guest) // the guest has its own
	if err != nil {
		return Exit{}, err
	}
	relay := &relay{host: tty.host, signal: func(sig unix.Signal) { _ = g.signalTerminal(pid, sig) }} // fails when the process has ended
	var running sync.WaitGroup
	over := make(chan struct{})
	running.Go(func() { relay.input(cfg.Stdin) })
	running.Go(func() { relay.output(cfg.Stdout) })
	running.Go(func() { relay.sizes(cfg.Resize, over) })
	exit, err := g.end(ctx, pid)
	close(over)
	relay.interrupt(cfg.Stdin)
	running.Wait()
	if cfg.Stdin != nil {
		_ = cfg.Stdin.SetReadDeadline(time.Time{}) // the caller's again; it took one before
	}
	return exit, err
}

// relay copies between a terminal and the streams of whoever uses it.
type relay struct {
	host   *os.File
	signal func(unix.Signal)
}

// input copies what is typed. The host's kernel would send the signals of control characters to a session of the host's, which a
// terminal of the guest's has not; so they are sent from here.
func (r *relay) input(from *os.File) {
	if from == nil {
		return
	}
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			signals := r.signals(buffer[:n])
			if _, err := r.host.Write(buffer[:n]); err != nil {
				return // the terminal is closed
			}
			for _, sig := range signals {
				r.signal(sig)
			}
		}
		if errors.Is(err, io.EOF) {
			r.endOfFile()
		}
		if err != nil {
			return
		}
	}
}

// endOfFile types what means the input's end, where the terminal's mode has such a character.
func (r *relay) endOfFile() {
	mode, err := r.mode()
	if err == nil && mode.Lflag&unix.ICANON != 0 {
		_, _ = r.host.Write([]byte{mode.Cc[unix.VEOF]}) // a closed terminal needs no end
	}
}

// signals are those that characters send in the terminal's present mode.
func (r *relay) signals(typed []byte) []unix.Signal {
	mode, err := r.mode()
	if err != nil || mode.Lflag&unix.ISIG == 0 {
		return nil
	}
	var list []unix.Signal
	for _, key := range []struct {
		index  int
		signal unix.Signal
	}{{unix.VINTR, unix.SIGINT}, {unix.VQUIT, unix.SIGQUIT}, {unix.VSUSP, unix.SIGTSTP}} {
		if char := mode.Cc[key.index]; char != 0 && bytes.IndexByte(typed, char) >= 0 {
			list = append(list, key.signal)
		}
	}
	return list
}

func (r *relay) mode() (mode *unix.Termios, err error) {
	err = withDescriptor(r.host, func(fd int) (err error) {
		mode, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return mode, err
}

// output copies what the guest shows, until nobody in the guest has the terminal or the process has ended.
func (r *relay) output(to *os.File) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.host.Read(buffer)
		r.show(to, buffer[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.rest(to, buffer)
		}
		if err != nil {
			return
		}
	}
}

// rest copies what the process showed before it ended: that is in the terminal now, and others may hold it open for ever.
func (r *relay) rest(to *os.File, buffer []byte) {
	for {
		n := 0
		err := withDescriptor(r.host, func(fd int) (err error) {
			n, err = unix.Read(fd, buffer)
			return err
		})
		if err != nil || n == 0 {
			return
		}
		r.show(to, buffer[:n])
	}
}

// show drops what nobody reads any more: the guest must not hang for that.
func (r *relay) show(to *os.File, data []byte) {
	if to != nil && len(data) > 0 {
		_, _ = to.Write(data)
	}
}

// sizes passes on the sizes that a terminal gets.
func (r *relay) sizes(sizes <-chan WindowSize, over <-chan struct{}) {
	for {
		select {
		case size, more := <-sizes:
			if !more {
				return
			}
			if resize(r.host, size) == nil {
				r.signal(unix.SIGWINCH)
			}
		case <-over:
			return
		}
	}
}

// interrupt ends the reading of both sides.
func (r *relay) interrupt(from *os.File) {
	past := time.Unix(1, 0)
	_ = r.host.SetReadDeadline(past) // a terminal takes one
	if from != nil {
		_ = from.SetReadDeadline(past) // a file that takes none does not block
	}
}
