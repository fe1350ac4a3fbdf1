//go:build linux

package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRunning says that another process runs this state directory's cluster.
var ErrRunning = errors.New("already running")

// ErrNotRunning says that no process runs this state directory's cluster.
var ErrNotRunning = errors.New("not running")

// Lock is held by the process that runs the cluster of a state directory; the file names its pid.
type Lock struct{ file *os.File }

func lockPath(dir string) string { return filepath.Join(dir, "up.lock") }

// Acquire takes the lock, or returns ErrRunning with the holder's pid.
func Acquire(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	file, err := os.OpenFile(lockPath(dir), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := readPID(file)
		_ = file.Close()
		return nil, fmt.Errorf("state directory %s: %w with pid %d", dir, ErrRunning, pid)
	}
	lock := &Lock{file: file}
	if err := file.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), lock.Release())
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), lock.Release())
	}
	return lock, nil
}

// Release lets the lock go.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}

// Holder is the pid of the process that runs the cluster, or ErrNotRunning.
func Holder(dir string) (int, error) {
	file, err := os.Open(lockPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrNotRunning
	}
	if err != nil {
		return 0, fmt.Errorf("open lock: %w", err)
	}
	defer func() { _ = file.Close() }() // read only: nothing to lose
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0, ErrNotRunning
	}
	pid := readPID(file)
	if pid == 0 {
		return 0, ErrNotRunning // it has the lock and has not written yet, or is just ending
	}
	return pid, nil
}

func readPID(file *os.File) int {
	buf := make([]byte, 16)
	n, _ := file.ReadAt(buf, 0) // io.EOF is the rule
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}
