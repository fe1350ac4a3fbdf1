package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	cgroups "github.com/containerd/cgroups/v3"
)

// Start starts the command in the group, from its first page on. It costs less than half a millisecond, where to move a process
// costs ten: the kernel first waits for all processors.
func (g *Group) Start(cmd *exec.Cmd) error {
	if err := g.control.start(cmd); err != nil {
		return fmt.Errorf("start %s in control group %s: %w", cmd.Path, g.ID, err)
	}
	return nil
}

// Enter runs f while this process is in the group, and takes it back to where it was. What f starts is in the group from its
// first page on; that is the way to create a sandbox, which starts its processes itself and from any thread. Everything else that
// the process starts meanwhile is in the group too, so one Enter at a time, in a process that starts nothing else.
//
// It costs two moves, of about 10 ms each. To move a sandbox's processes later is no way to save them: the stubs that guest code
// runs in are not in sandbox.PIDs, they would stay where they were made and so would the guest's memory.
func (g *Group) Enter(f func() error) error {
	back, err := here("/proc/self/cgroup", g.roots)
	if err != nil {
		return fmt.Errorf("enter control group %s: %w", g.ID, err)
	}
	if err := g.control.add(os.Getpid()); err != nil {
		return errors.Join(fmt.Errorf("enter control group %s: %w", g.ID, err), move(back, "cgroup.procs", os.Getpid()))
	}
	err = f()
	if left := move(back, "cgroup.procs", os.Getpid()); left != nil {
		return errors.Join(err, fmt.Errorf("leave control group %s: %w", g.ID, left))
	}
	return err
}

// startFromThread starts the command from a thread that is in the directories while it does: children are where the thread is
// that makes them. A thread that moves itself needs not wait for anybody.
func startFromThread(cmd *exec.Cmd, roots, dirs []string) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		back, err := here("/proc/thread-self/cgroup", roots)
		if err != nil {
			runtime.UnlockOSThread()
			started <- err
			return
		}
		if err = move(dirs, "tasks", 0); err == nil {
			err = cmd.Start()
		}
		if move(back, "tasks", 0) == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine, so that nothing more is started there
		}
		started <- err
	}()
	return <-started
}

// here is where a process or thread is, in the trees with these roots.
func here(file string, roots []string) ([]string, error) {
	controllers, unified, err := cgroups.ParseCgroupFileUnified(file)
	if err != nil {
		return nil, err
	}
	dirs := make(map[string]bool)
	for _, root := range roots {
		path, v1 := controllers[filepath.Base(root)]
		if !v1 {
			path = unified
		}
		dirs[filepath.Join(root, path)] = true
	}
	return slices.Sorted(maps.Keys(dirs)), nil
}

// move writes a number into the file of each directory; 0 means who writes.
func move(dirs []string, file string, number int) error {
	var failed error
	for _, dir := range dirs {
		failed = errors.Join(failed, write(filepath.Join(dir, file), strconv.Itoa(number)))
	}
	return failed
}
