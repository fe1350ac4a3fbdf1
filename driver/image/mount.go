package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxLowers is how many layers one mount takes: their names must fit a page.
	maxLowers = 200
	// maxLayers is how many an image may have: overlayfs can lie on one other, which holds the lower half.
	maxLayers = 2*maxLowers - 2

	mountFlags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID // for the host's sake: in the sandbox gVisor decides
)

// Suffixes of what belongs to a mount.
const (
	baseSuffix = ".base" // the lower layers of a tall image
	mendSuffix = ".mend" // see stack
)

// roots is the directory of the mounts, named by what is in them.
type roots struct {
	dir   string
	locks locks
}

// mount mounts the image's root unless it is mounted, and returns where. Mounts outlive the process, and are made again after
// a reboot.
func (s *roots) mount(ctx context.Context, rec record, layers *layerStore) (string, error) {
	target := filepath.Join(s.dir, rec.content())
	if isMounted(target) {
		return target, nil
	}
	lock, err := s.locks.lock(ctx, mountLock(rec.content()), unix.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	if isMounted(target) {
		return target, nil
	}
	if err := s.unmountLocked(rec.content()); err != nil { // what a crash left
		return "", err
	}
	stack, err := layers.stack(rec)
	if err != nil {
		return "", err
	}
	if err := stack.mountAt(target); err != nil {
		return "", errors.Join(err, s.unmountLocked(rec.content()))
	}
	return target, nil
}

func mountLock(content string) string { return "mount-" + content }

func (st stack) mountAt(target string) error {
	mend, base := target+mendSuffix, target+baseSuffix
	for _, dir := range []string{target, mend, base} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	mended, err := st.mend(mend)
	if err != nil {
		return err
	}
	var lowers []string
	if mended {
		lowers = append(lowers, mend)
	}
	for _, l := range st {
		lowers = append(lowers, l.root)
	}
	if len(lowers) > maxLowers {
		if err := overlay(base, lowers[maxLowers-1:]); err != nil {
			return err
		}
		lowers = append(lowers[:maxLowers-1:maxLowers-1], base)
	}
	return overlay(target, lowers)
}

// overlay mounts the directories over each other, the highest first.
func overlay(target string, lowers []string) error {
	if len(lowers) == 1 { // overlayfs wants two: an empty one below changes nothing
		lowers = append(lowers, target)
	}
	// By descriptors, their names are short however deep the store lies, and hold no character that means something here.
	names := make([]string, len(lowers))
	for i, dir := range lowers {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open layer: %w", &os.PathError{Op: "open", Path: dir, Err: err})
		}
		defer func() { _ = unix.Close(fd) }() // nothing is written through it
		names[i] = "/proc/self/fd/" + strconv.Itoa(fd)
	}
	// No layer may lead to another's files, whatever attributes it brings.
	options := "redirect_dir=nofollow,metacopy=off,lowerdir=" + strings.Join(names, ":")
	if err := unix.Mount("freshet", target, "overlay", mountFlags, options); err != nil {
		return fmt.Errorf("mount %d layers at %s: %w", len(lowers), target, err)
	}
	return nil
}

// unmountLocked undoes mountAt, also in part. It fails with EBUSY when someone is in there.
func (s *roots) unmountLocked(content string) error {
	target := filepath.Join(s.dir, content)
	for _, dir := range []string{target, target + baseSuffix} {
		if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove mount point: %w", err)
		}
	}
	if err := os.RemoveAll(target + mendSuffix); err != nil {
		return fmt.Errorf("remove mount point: %w", err)
	}
	return nil
}

func isMounted(dir string) bool {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, 0, &stat)
	return err == nil && stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
