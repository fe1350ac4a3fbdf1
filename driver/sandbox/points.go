package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A root is shared and never written, but gVisor's gofer makes the places for mounts in it. So where a root lacks some, they lie in
// a directory of the sandbox's own, and an overlay of both stands in for the root. It is mounted while the sandbox is created only:
// sandbox and gofer then have it in mount namespaces of their own, and nothing is left to unmount when they end.

// completeRoot is a root that has the places for all mounts: the given one, or what stands in for it until remove is called.
func completeRoot(cfg Config) (root string, remove func() error, err error) {
	points, place := filepath.Join(cfg.StateDir, pointsFolder), filepath.Join(cfg.StateDir, rootFolder)
	missing, err := mountPoints(cfg, points)
	if err != nil {
		return "", nil, err
	}
	if !missing {
		return cfg.Rootfs, func() error { return nil }, nil
	}
	remove, err = standIn(points, cfg.Rootfs, place)
	return place, remove, err
}

// mountPoints makes the places that a root lacks, in a directory that becomes the overlay's upper layer, and tells whether it
// lacks any.
func mountPoints(cfg Config, dir string) (missing bool, err error) {
	root, err := os.Open(cfg.Rootfs)
	if err != nil {
		return false, fmt.Errorf("open root: %w", err)
	}
	defer closeAll(root)
	for _, point := range boundTargets(cfg) {
		found, err := findPoint(root, point.target)
		if err != nil {
			return false, err
		}
		if found.exists {
			continue
		}
		if err := found.make(root, dir, point.directory); err != nil {
			return false, fmt.Errorf("make place for mount %s: %w", point.target, err)
		}
		missing = true
	}
	return missing, nil
}

// target is a place for a bind mount.
type target struct {
	target    string
	directory bool
}

func boundTargets(cfg Config) []target {
	var list []target
	for _, m := range cfg.Mounts {
		if m.Source == "" {
			continue
		}
		info, err := os.Stat(m.Source)
		list = append(list, target{m.Target, err == nil && info.IsDir()}) // what is not there gVisor reports
	}
	for _, f := range cfg.Files {
		list = append(list, target{f.Target, false})
	}
	return list
}

// point is a place in a root: the part of it that exists, without links, and the rest.
type point struct {
	base   string
	rest   []string
	exists bool
}

// findPoint follows a path as a process in the root would.
func findPoint(root *os.File, path string) (point, error) {
	parts := strings.Split(strings.Trim(filepath.Clean(path), "/"), "/")
	top, err := os.Readlink(descriptorPath(root))
	if err != nil {
		return point{}, fmt.Errorf("read root's path: %w", err)
	}
	for known := len(parts); known >= 0; known-- {
		fd, err := unix.Openat2(int(root.Fd()), filepath.Join(parts[:known]...)+"/.", inRoot(unix.O_PATH))
		if errors.Is(err, unix.ENOTDIR) && known == len(parts) {
			fd, err = unix.Openat2(int(root.Fd()), filepath.Join(parts...), inRoot(unix.O_PATH))
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return point{}, fmt.Errorf("find place for mount %s: %w", path, err)
		}
		file := os.NewFile(uintptr(fd), path)
		real, err := os.Readlink(descriptorPath(file))
		closeAll(file)
		if err != nil {
			return point{}, fmt.Errorf("find place for mount %s: %w", path, err)
		}
		return point{base: strings.TrimPrefix(real, strings.TrimSuffix(top, "/")), rest: parts[known:], exists: known == len(parts)}, nil
	}
	return point{}, fmt.Errorf("find place for mount %s: the root is no directory", path)
}

// make makes a place below dir. A directory that stands over one of the root has its owner and mode: it is what the guest sees.
func (p point) make(root *os.File, dir string, directory bool) error {
	path := ""
	for _, part := range strings.Split(strings.Trim(p.base, "/"), "/") {
		path = filepath.Join(path, part)
		var info unix.Stat_t
		if err := unix.Fstatat(int(root.Fd()), path, &info, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
			return err
		}
		made := filepath.Join(dir, path)
		if err := os.MkdirAll(made, 0o755); err != nil {
			return err
		}
		if err := os.Lchown(made, int(info.Uid), int(info.Gid)); err != nil {
			return err
		}
		if err := unix.Chmod(made, info.Mode&0o7777); err != nil {
			return err
		}
	}
	place := filepath.Join(dir, p.base, filepath.Join(p.rest...))
	if directory {
		return os.MkdirAll(place, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(place, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

func inRoot(flags uint64) *unix.OpenHow {
	return &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
}

func descriptorPath(file *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", file.Fd()) }

// standIn mounts the points over the root, at a place of the sandbox's own, and returns what removes it.
func standIn(points, rootfs, place string) (remove func() error, err error) {
	if err := os.MkdirAll(place, 0o755); err != nil {
		return nil, fmt.Errorf("make place for the root: %w", err)
	}
	upper, err := os.Open(points)
	if err != nil {
		return nil, fmt.Errorf("open places for mounts: %w", err)
	}
	defer closeAll(upper)
	lower, err := os.Open(rootfs)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	defer closeAll(lower)
	// By descriptors: a path may hold what the option's syntax gives a meaning.
	layers := "lowerdir=" + descriptorPath(upper) + ":" + descriptorPath(lower)
	if err := unix.Mount("overlay", place, "overlay", unix.MS_RDONLY|unix.MS_NODEV, layers); err != nil {
		return nil, fmt.Errorf("lay places for mounts over the root: %w", err)
	}
	return func() error {
		if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount the root's stand-in: %w", err)
		}
		return nil
	}, nil
}
