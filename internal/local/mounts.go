//go:build linux

package local

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// UnmountUnder detaches what is mounted under a folder, so that it can be removed: Nomad keeps the secrets of allocations that
// it has not collected, gVisor a network namespace for its next sandbox. Both make them anew.
func UnmountUnder(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("find mounts: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line) // device, path, type, ... (fstab(5)); a space in a path is written as \040
		if len(fields) < 2 {
			continue
		}
		path := strings.ReplaceAll(fields[1], `\040`, " ")
		if !strings.HasPrefix(path, dir+"/") {
			continue
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // it went with another
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}
