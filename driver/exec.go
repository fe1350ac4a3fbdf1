package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// defaultSize is a terminal's size until its owner says another.
func defaultSize() handoff.Size { return handoff.Size{Rows: 24, Columns: 80} }

// ExecTask runs a command in the task and returns what it wrote; health checks use it.
func (d *Driver) ExecTask(id string, command []string, timeout time.Duration) (*drivers.ExecTaskResult, error) {
	ctx, cancel := context.WithTimeoutCause(d.ctx, timeout, fmt.Errorf("the command took longer than %s", timeout))
	defer cancel()
	var stdout, stderr bytes.Buffer
	exit, err := d.exec(ctx, id, &drivers.ExecOptions{
		Command: command, Stdin: io.NopCloser(bytes.NewReader(nil)), Stdout: closing{&stdout}, Stderr: closing{&stderr},
	})
	if err != nil {
		return nil, err
	}
	return &drivers.ExecTaskResult{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), ExitResult: exit}, nil
}

// closing makes a buffer closable.
type closing struct{ io.Writer }

func (closing) Close() error { return nil }

// ExecTaskStreaming runs a command in the task with the streams of a person or a program.
func (d *Driver) ExecTaskStreaming(ctx context.Context, id string, options *drivers.ExecOptions) (*drivers.ExitResult, error) {
	return d.exec(ctx, id, options)
}

func (d *Driver) exec(ctx context.Context, id string, options *drivers.ExecOptions) (*drivers.ExitResult, error) {
	t, err := d.tasks.get(id)
	if err != nil {
		return nil, err
	}
	if len(options.Command) == 0 {
		return nil, errors.New("exec: the command is empty: name a program")
	}
	if !t.running() {
		return nil, fmt.Errorf("exec: task %s has ended", id)
	}
	if err := t.listening(ctx); err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	streams, err := openExec(options)
	if err != nil {
		return nil, err
	}
	request := handoff.Request{Exec: &handoff.Exec{Args: options.Command}}
	var resize chan handoff.Size
	over := make(chan struct{})
	if options.Tty {
		request.Exec.Terminal, resize = new(defaultSize()), make(chan handoff.Size)
		streams.copying.Go(func() { sizes(options.ResizeCh, resize, over) })
	}
	answer, err := handoff.Ask(ctx, t.state.StateDir, request, resize, streams.guest[:]...)
	close(over)
	streams.end()
	if err != nil {
		return nil, fmt.Errorf("exec in task %s: %w", id, err)
	}
	return &drivers.ExitResult{ExitCode: answer.Code, Signal: answer.Signal}, nil
}

func sizes(from <-chan drivers.TerminalSize, to chan<- handoff.Size, over <-chan struct{}) {
	for {
		select {
		case size, ok := <-from:
			if !ok {
				return
			}
			select {
			case to <- handoff.Size{Rows: uint16(size.Height), Columns: uint16(size.Width)}:
			case <-over:
				return
			}
		case <-over:
			return
		}
	}
}

// execStreams connect the caller's streams to the pipes that the guest's process gets.
type execStreams struct {
	options *drivers.ExecOptions
	guest   [3]*os.File
	stdin   *os.File
	copying sync.WaitGroup
}

func openExec(options *drivers.ExecOptions) (s *execStreams, err error) {
	s = &execStreams{options: options}
	var hosts [3]*os.File
	defer func() {
		if err != nil {
			closeFiles(append(s.guest[:], hosts[:]...)...)
		}
	}()
	if s.guest[0], hosts[0], err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("exec: make a pipe: %w", err)
	}
	for i := 1; i < 3; i++ {
		if hosts[i], s.guest[i], err = os.Pipe(); err != nil {
			return nil, fmt.Errorf("exec: make a pipe: %w", err)
		}
	}
	s.stdin = hosts[0]
	go s.typing() // ends with the caller's stream, which nobody can interrupt: not waited for
	s.copying.Go(func() { pump(options.Stdout, hosts[1]) })
	s.copying.Go(func() { pump(options.Stderr, hosts[2]) })
	return s, nil
}

func closeFiles(files ...*os.File) {
	for _, file := range files {
		_ = file.Close() // a nil file's error is nothing
	}
}

// typing passes on what the caller types.
func (s *execStreams) typing() {
	_, _ = io.Copy(s.stdin, s.options.Stdin) // the process may have stopped to read
	_ = s.stdin.Close()
}

// pump passes on what the process writes.
func pump(to io.WriteCloser, from *os.File) {
	_, _ = io.Copy(to, from) // the caller may have gone
	_, _ = io.Copy(io.Discard, from)
	_ = from.Close()
	_ = to.Close()
}

// end closes what was the process's, and waits until all that it wrote is passed on.
func (s *execStreams) end() {
	closeFiles(s.guest[:]...)
	_ = s.options.Stdin.Close()
	_ = s.stdin.Close()
	s.copying.Wait()
}
