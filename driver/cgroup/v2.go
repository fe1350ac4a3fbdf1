package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/cgroups/v3/cgroup2"
)

// v2 has one tree of groups.
type v2 struct {
	root string
	// controllers are those that groups below the parent have.
	controllers []string
}

func openV2(root, parent string) (*v2, error) {
	if err := os.MkdirAll(filepath.Join(root, parent), 0o755); err != nil {
		return nil, fmt.Errorf("make parent: %w", err)
	}
	available, err := readFields(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	wanted := slices.DeleteFunc([]string{"cpu", "cpuset", "memory", "pids"}, func(controller string) bool {
		return !slices.Contains(available, controller)
	})
	v := &v2{root: root}
	if len(wanted) > 0 {
		child, err := v.manager("/" + parent + "/any")
		if err != nil {
			return nil, err
		}
		if err := child.ToggleControllers(wanted, cgroup2.Enable); err != nil {
			return nil, fmt.Errorf("enable controllers (the parent and the groups above it, but the root, may hold no process): %w", err)
		}
	}
	v.controllers, err = readFields(filepath.Join(root, parent, "cgroup.subtree_control"))
	return v, err
}

func (v *v2) manager(name string) (*cgroup2.Manager, error) {
	return cgroup2.Load(name, cgroup2.WithMountpoint(v.root))
}

func (v *v2) has(controller string) bool {
	return controller == "cpuacct" || slices.Contains(v.controllers, controller) // the time used is always counted
}

func (v *v2) roots() []string { return []string{v.root} }

func (v *v2) create(name string, limits Limits) (control, error) {
	if err := os.Mkdir(filepath.Join(v.root, name), 0o755); err != nil {
		return nil, err
	}
	group, err := v.load(name)
	if err != nil {
		return nil, err
	}
	if v.has("memory") {
		// A sandbox whose sentry was killed is dead: what is left of it goes with it.
		if err := write(filepath.Join(v.root, name, "memory.oom.group"), "1"); err != nil {
			return nil, err
		}
	}
	return group, group.update(limits)
}

func (v *v2) load(name string) (control, error) {
	manager, err := v.manager(name)
	if err != nil {
		return nil, err
	}
	return &v2Group{v2: v, dir: filepath.Join(v.root, name), manager: manager}, nil
}

// resources says all limits, those that are lifted too.
func (v *v2) resources(limits Limits) *cgroup2.Resources {
	resources := &cgroup2.Resources{}
	if v.has("memory") {
		limit, swap := or(limits.Memory, maxMemory), int64(0)
		if limits.Memory == 0 {
			swap = maxMemory
		}
		resources.Memory = &cgroup2.Memory{Max: &limit, Low: &limits.Reserved, Swap: &swap}
	}
	if v.has("cpu") {
		weight := cgroup2.ConvertCPUSharesToCgroupV2Value(or(limits.CPUShares, defaultShares))
		resources.CPU = &cgroup2.CPU{Weight: &weight, Max: cgroup2.NewCPUMax(nil, nil)}
		if quota := limits.quota(); quota > 0 {
			resources.CPU.Max = cgroup2.NewCPUMax(&quota, nil)
		}
	}
	if v.has("pids") {
		resources.Pids = &cgroup2.Pids{Max: or(limits.PIDs, -1)}
	}
	return resources
}

type v2Group struct {
	*v2
	dir     string
	manager *cgroup2.Manager
}

func (g *v2Group) file(name string) string { return filepath.Join(g.dir, name) }

func (g *v2Group) add(pid int) error { return g.manager.AddProc(uint64(pid)) }

func (g *v2Group) start(cmd *exec.Cmd) error {
	dir, err := os.Open(g.dir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // a directory
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	return cmd.Start()
}

func (g *v2Group) update(limits Limits) error {
	resources := g.resources(limits)
	err := g.manager.Update(resources)
	if errors.Is(err, fs.ErrNotExist) && resources.Memory != nil && !exists(g.file("memory.swap.max")) {
		resources.Memory.Swap = nil // a kernel without swap has no such file
		err = g.manager.Update(resources)
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (g *v2Group) kill() error {
	err := write(g.file("cgroup.kill"), "1")
	if errors.Is(err, fs.ErrNotExist) && exists(g.dir) {
		return errors.ErrUnsupported // before Linux 5.14
	}
	return err
}

func (g *v2Group) freeze(stop bool) error {
	state := "0"
	if stop {
		state = "1"
	}
	return write(g.file("cgroup.freeze"), state)
}

func (g *v2Group) frozen() (bool, error) {
	events, err := readKeyed(g.file("cgroup.events"))
	return events["frozen"] == 1, err
}

func (g *v2Group) useCPUs(dir string) error {
	cpus, err := readFields(filepath.Join(dir, "cpuset.cpus.effective"))
	if err != nil {
		return err
	}
	return g.manager.Update(&cgroup2.Resources{CPU: &cgroup2.CPU{Cpus: strings.Join(cpus, "")}})
}

func (g *v2Group) oomKills() (uint64, error) {
	events, err := readKeyed(g.file("memory.events"))
	return events["oom_kill"], err
}

func (g *v2Group) oomEvents() (*os.File, error) {
	fd, _, err := g.manager.MemoryEventFD()
	if err != nil {
		return nil, err
	}
	return pollable(fd, "memory events")
}

func (g *v2Group) stats() (Stats, error) {
	r := reader{dir: func(string) string { return g.dir }, has: g.has}
	memory, oom, cpu := r.keyed("memory", "memory.stat"), r.keyed("memory", "memory.events"), r.keyed("cpuacct", "cpu.stat")
	kernel, known := memory["kernel"]
	if !known { // before Linux 5.18
		kernel = memory["kernel_stack"] + memory["slab"] + memory["pagetables"] + memory["sock"] + memory["percpu"]
	}
	stats := Stats{
		CPU:              microseconds(cpu["usage_usec"]),
		CPUUser:          microseconds(cpu["user_usec"]),
		CPUSystem:        microseconds(cpu["system_usec"]),
		ThrottledPeriods: cpu["nr_throttled"],
		Throttled:        microseconds(cpu["throttled_usec"]),
		RSS:              memory["anon"] + memory["shmem"],
		Cache:            less(memory["file"], memory["shmem"]),
		MappedFile:       memory["file_mapped"],
		Usage:            r.number("memory", "memory.current"),
		Kernel:           kernel,
		OOMKills:         oom["oom_kill"],
		PIDs:             r.number("pids", "pids.current"),
	}
	if exists(g.file("memory.swap.current")) {
		stats.Swap = r.number("memory", "memory.swap.current")
	}
	if exists(g.file("memory.peak")) {
		stats.MaxUsage = r.number("memory", "memory.peak")
	}
	return stats, r.err
}
