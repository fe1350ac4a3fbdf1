// Package logfile writes what a task prints to where Nomad looks for it.
package logfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// Open opens the places of standard output and error: Nomad's collector where it runs, else files under its names. Each takes one
// write at a time.
func Open(settings handoff.Logs) (stdout, stderr io.WriteCloser, err error) {
	if stdout, err = open(settings, settings.Stdout, "stdout"); err != nil {
		return nil, nil, err
	}
	if stderr, err = open(settings, settings.Stderr, "stderr"); err != nil {
		return nil, nil, errors.Join(err, stdout.Close())
	}
	return stdout, stderr, nil
}

func open(settings handoff.Logs, fifo, stream string) (io.WriteCloser, error) {
	if fifo != "" {
		return openCollector(fifo)
	}
	return openRotating(settings, stream)
}

// collectorWait is how long a write waits for Nomad's collector, which restarts with its agent.
const collectorWait = 5 * time.Second

// collector is the named pipe of Nomad's log collector. It is opened for reading too, so that it stays usable while the
// collector is replaced. What does not fit meanwhile is lost after a wait: a guest must not hang for its logs.
type collector struct{ pipe *os.File }

func openCollector(path string) (*collector, error) {
	pipe, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open log collector: %w", err)
	}
	return &collector{pipe: pipe}, nil
}

// Write implements io.Writer.
func (c *collector) Write(data []byte) (n int, err error) {
	if err = c.pipe.SetWriteDeadline(time.Now().Add(collectorWait)); err == nil {
		n, err = c.pipe.Write(data)
	}
	if err != nil {
		return n, fmt.Errorf("write to the log collector: %w", err)
	}
	return n, nil
}

// Close implements io.Closer.
func (c *collector) Close() error {
	if err := c.pipe.Close(); err != nil {
		return fmt.Errorf("close log collector: %w", err)
	}
	return nil
}

// rotating is a log file under the names that Nomad gives them: task.stdout.0, task.stdout.1, …; the newest has the highest
// number, and the oldest beyond the limit are removed.
type rotating struct {
	base     string
	maxFiles int
	maxBytes int64

	file   *os.File
	index  int
	size   int64
	closed bool
}

func openRotating(settings handoff.Logs, stream string) (*rotating, error) {
	r := &rotating{
		base:     filepath.Join(settings.Dir, settings.Task+"."+stream),
		maxFiles: max(settings.MaxFiles, 1),
		maxBytes: int64(max(settings.MaxSizeMB, 1)) << 20,
	}
	for { // go on with the newest file of an earlier run
		if _, err := os.Stat(r.name(r.index + 1)); err != nil {
			break
		}
		r.index++
	}
	return r, r.open()
}

func (r *rotating) name(index int) string { return fmt.Sprintf("%s.%d", r.base, index) }

func (r *rotating) open() error {
	file, err := os.OpenFile(r.name(r.index), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log file: %w", err), file.Close())
	}
	r.file, r.size = file, info.Size()
	return nil
}

// Write goes on in a new file when the one it writes is full, which is looked at between writes: a line is in one file.
func (r *rotating) Write(data []byte) (int, error) {
	if r.closed {
		return len(data), nil
	}
	if r.size > r.maxBytes {
		if err := r.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Write(data)
	r.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write log file: %w", err)
	}
	return n, nil
}

func (r *rotating) rotate() error {
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("rotate log file: %w", err)
	}
	r.index++
	if oldest := r.index - r.maxFiles; oldest >= 0 {
		if err := os.Remove(r.name(oldest)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotate log file: %w", err)
		}
	}
	return r.open()
}

// Close implements io.Closer. What is written later is dropped.
func (r *rotating) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close log file: %w", err)
	}
	return nil
}
