package cgroup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is one control group. Its methods may be called at the same time; those that read or change a group that is removed
// meanwhile return an error that is fs.ErrNotExist.
type Group struct {
	// ID is what it was created with.
	ID string

	name    string // below the roots, from "/"
	roots   []string
	control control
}

// Add moves a process into the group, all its threads with it. What it has touched so far stays charged to where it was, and
// what it starts later is in the group too. An error that is unix.ESRCH says that the process ended.
func (g *Group) Add(pid int) error {
	if pid <= 0 {
		return fmt.Errorf("add process to control group %s: pid: %d: use a process's number", g.ID, pid)
	}
	if err := g.control.add(pid); err != nil {
		return fmt.Errorf("add process %d to control group %s: %w", pid, g.ID, err)
	}
	return nil
}

// Update sets all limits anew, while the processes run. Limits that are 0 are lifted. A memory limit below what is in use
// fails with unix.EBUSY on v1; on v2 it takes what can be taken back and else kills the processes.
func (g *Group) Update(limits Limits) error {
	if err := limits.check(nil); err != nil {
		return fmt.Errorf("limit control group %s: %w", g.ID, err)
	}
	if err := g.control.update(limits); err != nil {
		return fmt.Errorf("limit control group %s: %w", g.ID, err)
	}
	return nil
}

// UseCPUs confines the group's processes, and those that they start later, to the processors of another group's directory:
// Nomad names it in LinuxResources.CpusetCgroupPath. On v1 the processes join it and follow its changes; on v2, where a
// process is in one group only, its processors are copied: call it again now and then, for Nomad changes the ones that are not
// reserved.
func (g *Group) UseCPUs(dir string) error {
	if err := g.control.useCPUs(dir); err != nil {
		return fmt.Errorf("confine control group %s to the processors of %s: %w", g.ID, dir, err)
	}
	return nil
}

// Stats is what the group uses and has used.
func (g *Group) Stats() (Stats, error) {
	stats, err := g.control.stats()
	if err != nil {
		return Stats{}, fmt.Errorf("measure control group %s: %w", g.ID, err)
	}
	return stats, nil
}

// OOMKills is how many of the group's processes the kernel killed because memory was short: in the group, or on the whole
// machine.
func (g *Group) OOMKills() (uint64, error) {
	kills, err := g.control.oomKills()
	if err != nil {
		return 0, fmt.Errorf("count kills of control group %s: %w", g.ID, err)
	}
	return kills, nil
}

// PIDs are the processes in the group, in rising order. Some may have ended when it returns.
func (g *Group) PIDs() ([]int, error) {
	found := make(map[int]bool)
	for _, dir := range g.existing() {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // removed meanwhile
			case err != nil:
				return err
			case entry.IsDir() || entry.Name() != "cgroup.procs":
				return nil
			}
			return readPIDs(path, found)
		})
		if err != nil {
			return nil, fmt.Errorf("list processes of control group %s: %w", g.ID, err)
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func readPIDs(path string, into map[int]bool) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil // removed between the listing and the reading
	}
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if pid > 0 { // 0 is a process of a namespace above, which has no number here
			into[pid] = true
		}
	}
	return nil
}

// pause is how often the kernel is asked again where it tells nobody.
const pause = 2 * time.Millisecond

// Kill kills every process in the group, also those that are just being forked. They may need a moment to be gone: Remove
// waits for that. An empty group is no error.
func (g *Group) Kill(ctx context.Context) error {
	err := g.control.kill()
	if errors.Is(err, errors.ErrUnsupported) {
		err = g.killFrozen(ctx)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill control group %s: %w", g.ID, err)
	}
	return nil
}

// killFrozen kills one by one, where the kernel cannot kill a whole group. Meanwhile the group is frozen: a frozen process
// neither forks nor ends, so none is missed and no number comes to mean another process.
func (g *Group) killFrozen(ctx context.Context) error {
	if err := g.control.freeze(true); err != nil {
		return err
	}
	frozen := g.awaitFrozen(ctx)
	pids, err := g.PIDs()
	for _, pid := range pids {
		if killed := unix.Kill(pid, unix.SIGKILL); killed != nil && !errors.Is(killed, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("kill process %d: %w", pid, killed))
		}
	}
	return errors.Join(frozen, err, g.control.freeze(false))
}

func (g *Group) awaitFrozen(ctx context.Context) error {
	for {
		frozen, err := g.control.frozen()
		if frozen || err != nil {
			return err
		}
		if err := rest(ctx); err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
	}
}

// rest waits for one pause, or the context's end.
func rest(ctx context.Context) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Remove waits until no process is left and removes the group with all that is nested in it. It kills nothing. Removing a group
// that is gone is no error.
func (g *Group) Remove(ctx context.Context) error {
	for {
		err := g.removeDirs()
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove control group %s: %w", g.ID, err)
		}
		if ended := rest(ctx); ended != nil {
			pids, _ := g.PIDs() // for the message alone
			return fmt.Errorf("remove control group %s: %w: processes %s are left", g.ID, ended, strings.Trim(fmt.Sprint(pids), "[]"))
		}
	}
}

// removeDirs removes the directories, the innermost first.
func (g *Group) removeDirs() error {
	for _, root := range g.existing() {
		var dirs []string
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return ignoreGone(err)
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := ignoreGone(unix.Rmdir(dir)); err != nil {
				return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
			}
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// existing are the group's directories that are there.
func (g *Group) existing() []string {
	var dirs []string
	for _, root := range g.roots {
		dir := filepath.Join(root, g.name)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
