package snapshot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lock opens the key's lock file and takes it; ErrBusy when it would have to wait.
func (s *Store) lock(key string, how int) (*os.File, error) {
	return lockFile(s.path(key)+lockSuffix, how)
}

func lockFile(path string, how int) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open snapshot lock: %w", err)
		}
		if err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB); err != nil {
			_ = file.Close() // a lock file holds no data
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, ErrBusy
			}
			return nil, fmt.Errorf("lock snapshot: %w", err)
		}
		if stands(file, path) {
			return file, nil
		}
		_ = file.Close() // it was swept before we had it: its name may belong to another file now
	}
}

// stands tells whether the path still names the open file.
func stands(file *os.File, path string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(ours, named)
}
