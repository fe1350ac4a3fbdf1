//go:build unix

package volumes

import (
	"errors"

	"golang.org/x/sys/unix"
)

// nonBlocking keeps the opening of a pipe from waiting for its other end.
const nonBlocking = unix.O_NONBLOCK

func freeBytes(dir string) (int64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return 0, err
	}
	return int64(disk.Bavail) * int64(disk.Bsize), nil //nolint:unconvert // the types differ between systems
}

func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
