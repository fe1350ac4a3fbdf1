package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// errBusy: another process or goroutine holds the lock.
var errBusy = errors.New("locked")

// The pauses between two tries of a lock, the first and the longest: the kernel's wait for one does not end with a context.
const (
	lockPause    = time.Millisecond
	maxLockPause = 50 * time.Millisecond
)

// locks is the directory of the store's locks.
type locks string

// lock takes the named lock of the store, shared (LOCK_SH) or alone (LOCK_EX), and waits for it as long as the context
// lasts. It holds against other processes as well; the kernel lets go of the locks of those who die. Close the file to let go.
func (k locks) lock(ctx context.Context, name string, how int) (*os.File, error) {
	for pause := lockPause; ; pause = min(2*pause, maxLockPause) {
		file, err := k.tryLock(name, how)
		if !errors.Is(err, errBusy) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lock %s: %w", name, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// tryLock is lock without waiting: errBusy when it would have to.
func (k locks) tryLock(name string, how int) (*os.File, error) {
	path := filepath.Join(string(k), name)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock %s: %w", name, err)
	}
	if err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB); err != nil {
		_ = file.Close() // a lock file holds no data
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errBusy
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if !isAt(file, path) {
		_ = file.Close() // collection removed the file while we took it
		return nil, errBusy
	}
	return file, nil
}

// isAt tells whether the path still leads to the file.
func isAt(file *os.File, path string) bool {
	opened, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, there)
}

// drop removes a lock that the caller holds alone, with the thing that it guarded.
func (k locks) drop(name string, held *os.File) {
	_ = os.Remove(filepath.Join(string(k), name)) // an empty file that stays harms nobody
	_ = held.Close()                              // a lock file holds no data
}
