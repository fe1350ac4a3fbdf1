package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// control answers what the driver plugin asks about a running sandbox.
type control struct {
	box  *sandbox.Sandbox
	task handoff.Task
}

func newControl(box *sandbox.Sandbox, task handoff.Task) *control {
	return &control{box: box, task: task}
}

func (c *control) answer(ctx context.Context, request handoff.Request, resize <-chan handoff.Size, files []*os.File) handoff.Answer {
	switch {
	case request.Exec != nil:
		end, err := c.exec(ctx, *request.Exec, resize, files)
		if code := unstarted(err); code != 0 {
			fmt.Fprintln(files[2], err)
			return handoff.Answer{Code: code}
		}
		if err != nil {
			return handoff.Answer{Error: err.Error()}
		}
		return handoff.Answer{Code: end.Code, Signal: end.Signal}
	case request.Signal == int(unix.SIGKILL):
		return answerOf(c.box.Kill())
	case request.Signal != 0:
		return answerOf(c.box.Signal(unix.Signal(request.Signal)))
	}
	return handoff.Answer{Error: "a request for nothing that this supervisor knows: plugin and supervisor are of different versions"}
}

// unstarted is a shell's exit code for a program that could not be started, and 0 for other errors. Whoever typed it reads why on
// its standard error: Nomad tells people nothing of a driver's error.
func unstarted(err error) int {
	switch {
	case errors.Is(err, sandbox.ErrNotFound):
		return 127
	case errors.Is(err, sandbox.ErrNotExecutable):
		return 126
	}
	return 0
}

func answerOf(err error) handoff.Answer {
	if err != nil {
		return handoff.Answer{Error: err.Error()}
	}
	return handoff.Answer{}
}

// exec runs a process beside the guest, as the same user and in the same environment.
func (c *control) exec(ctx context.Context, what handoff.Exec, resize <-chan handoff.Size, files []*os.File) (sandbox.Exit, error) {
	if len(files) != 3 {
		return sandbox.Exit{}, fmt.Errorf("exec: %d streams came with the request, not 3", len(files))
	}
	if len(what.Args) == 0 {
		return sandbox.Exit{}, errors.New("exec: the command is empty: name a program")
	}
	config := sandbox.ExecConfig{Args: what.Args, Stdin: files[0], Stdout: files[1], Stderr: files[2]}
	if what.Terminal == nil {
		return c.box.Exec(ctx, config)
	}
	stdin, err := interruptible(files[0])
	if err != nil {
		return sandbox.Exit{}, err
	}
	defer func() { _ = stdin.Close() }() // read only
	config.Stdin, config.Terminal = stdin, new(windowSize(*what.Terminal))
	config.Env = []string{"TERM=xterm"} // as docker says in a terminal
	sizes, over := make(chan sandbox.WindowSize), make(chan struct{})
	config.Resize = sizes
	var converting sync.WaitGroup
	converting.Go(func() { convert(resize, sizes, over) })
	defer converting.Wait()
	defer close(over)
	return c.box.Exec(ctx, config)
}

// interruptible is the same stream in a form that a deadline ends the reading of: it came as a descriptor that blocks.
func interruptible(file *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("exec: copy standard input: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("exec: change standard input: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), file.Name()), nil
}

func windowSize(size handoff.Size) sandbox.WindowSize {
	return sandbox.WindowSize{Rows: size.Rows, Cols: size.Columns}
}

func convert(from <-chan handoff.Size, to chan<- sandbox.WindowSize, over <-chan struct{}) {
	for {
		select {
		case size := <-from:
			select {
			case to <- windowSize(size):
			case <-over:
				return
			}
		case <-over:
			return
		}
	}
}
