// Command freshet-init is the first process of a sandbox with an `exec` or `http` handler: it answers the supervisor for a program
// that knows nothing of freshet. The driver puts it into each sandbox, with its settings in FRESHET_HANDLER. As `freshet-init wait` it
// keeps a sandbox whose work is done by processes beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/guestinit"
)

func main() {
	if slices.Equal(os.Args[1:], []string{"wait"}) { // for sandboxes whose work is done by others beside it
		wait()
	}
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "freshet-init:", err)
		var stopped *guestinit.Stopped
		if errors.As(err, &stopped) {
			os.Exit(stopped.Code)
		}
		os.Exit(1)
	}
}

// wait collects what processes leave behind, until the sandbox ends.
func wait() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for range ended {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

func run(ctx context.Context) error {
	settings, err := guestinit.ParseSettings(os.Getenv(guestinit.SettingsEnv))
	if err != nil {
		return err
	}
	in, out, err := protocol()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	defer signal.Stop(signals)
	var env []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, guestinit.SettingsEnv+"=") {
			env = append(env, variable)
		}
	}
	return guestinit.Run(ctx, settings, env, in, out, signals)
}

// protocol moves the standard streams, which carry the frames, to where nothing else finds them: programs that write to the
// descriptors of process 1, as they do for the logs of a container, then write to the log.
func protocol() (in, out *os.File, err error) {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil { // nothing else is for what is started
		return nil, nil, fmt.Errorf("keep descriptors from what is started: %w", err)
	}
	streams := make([]*os.File, 2)
	for fd := range streams {
		moved, err := syscall.Dup(fd)
		if err != nil {
			return nil, nil, fmt.Errorf("move stream %d: %w", fd, err)
		}
		syscall.CloseOnExec(moved)
		if fd == 0 {
			if err := syscall.SetNonblock(moved, true); err != nil { // so that closing it ends a read
				return nil, nil, fmt.Errorf("move stream %d: %w", fd, err)
			}
		}
		streams[fd] = os.NewFile(uintptr(moved), "protocol")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(syscall.Dup3(int(null.Fd()), 0, 0), syscall.Dup3(2, 1, 0), null.Close()); err != nil {
		return nil, nil, fmt.Errorf("replace the standard streams: %w", err)
	}
	return streams[0], streams[1], nil
}
