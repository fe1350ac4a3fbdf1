package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	cgroups "github.com/containerd/cgroups/v3"
)

// Enter runs f while this process is in the group, and takes it back to where it was. What f starts is in the group from its
// first page on; that is the way to create a sandbox. Everything else that the process starts meanwhile is in the group too, so
// one Enter at a time, in a process that starts nothing else.
func (g *Group) Enter(f func() error) error {
	back, err := g.here()
	if err != nil {
		return fmt.Errorf("enter control group %s: %w", g.ID, err)
	}
	if err := g.control.add(os.Getpid()); err != nil {
		return errors.Join(fmt.Errorf("enter control group %s: %w", g.ID, err), leave(back))
	}
	err = f()
	if left := leave(back); left != nil {
		return errors.Join(err, fmt.Errorf("leave control group %s: %w", g.ID, left))
	}
	return err
}

// here is where this process is, in the trees that the group is in.
func (g *Group) here() ([]string, error) {
	controllers, unified, err := cgroups.ParseCgroupFileUnified("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	dirs := make(map[string]bool)
	for _, root := range g.roots {
		path, v1 := controllers[filepath.Base(root)]
		if !v1 {
			path = unified
		}
		dirs[filepath.Join(root, path)] = true
	}
	return slices.Sorted(maps.Keys(dirs)), nil
}

func leave(dirs []string) error {
	var failed error
	for _, dir := range dirs {
		failed = errors.Join(failed, write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(os.Getpid())))
	}
	return failed
}
