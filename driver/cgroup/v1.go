package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// v1 has a tree of groups for each controller. A group is there by the same name in those that this package uses.
type v1 struct {
	root        string
	controllers []string
	// swap says that the kernel counts swap, so that it can be forbidden.
	swap bool
}

func openV1(root, parent string) (*v1, error) {
	v := &v1{root: root}
	// The freezer is first: whoever is listed or killed is looked up there.
	for _, controller := range []string{"freezer", "memory", "cpu", "cpuacct", "pids"} {
		var stat unix.Statfs_t
		if err := unix.Statfs(filepath.Join(root, controller), &stat); err == nil && stat.Type == unix.CGROUP_SUPER_MAGIC {
			v.controllers = append(v.controllers, controller)
		}
	}
	if !v.has("freezer") {
		return nil, errors.New("neither version 2 nor a version 1 freezer is mounted there: mount cgroup2")
	}
	_, err := os.Stat(filepath.Join(root, "memory", "memory.memsw.limit_in_bytes"))
	v.swap = err == nil
	for _, dir := range v.roots() {
		if err := os.MkdirAll(filepath.Join(dir, parent), 0o755); err != nil {
			return nil, fmt.Errorf("make parent: %w", err)
		}
	}
	return v, nil
}

func (v *v1) has(controller string) bool {
	for _, c := range v.controllers {
		if c == controller {
			return true
		}
	}
	return false
}

func (v *v1) roots() []string {
	roots := make([]string, len(v.controllers))
	for i, controller := range v.controllers {
		roots[i] = filepath.Join(v.root, controller)
	}
	return roots
}

// hierarchy is the library's view of the controllers.
func (v *v1) hierarchy() ([]cgroup1.Subsystem, error) {
	all := map[string]cgroup1.Subsystem{
		"freezer": cgroup1.NewFreezer(v.root),
		"memory":  cgroup1.NewMemory(v.root),
		"cpu":     cgroup1.NewCpu(v.root),
		"cpuacct": cgroup1.NewCpuacct(v.root),
		"pids":    cgroup1.NewPids(v.root),
	}
	var subsystems []cgroup1.Subsystem
	for _, controller := range v.controllers {
		subsystems = append(subsystems, all[controller])
	}
	return subsystems, nil
}

func (v *v1) create(name string, limits Limits) (control, error) {
	group, err := cgroup1.New(cgroup1.StaticPath(name), v.resources(limits), cgroup1.WithHierarchy(v.hierarchy))
	if err != nil {
		return nil, err
	}
	return &v1Group{v1: v, name: name, group: group}, nil
}

func (v *v1) load(name string) (control, error) {
	group, err := cgroup1.Load(cgroup1.StaticPath(name), cgroup1.WithHierarchy(v.hierarchy))
	if errors.Is(err, cgroup1.ErrCgroupDeleted) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	return &v1Group{v1: v, name: name, group: group}, nil
}

// resources says all limits, those that are lifted too.
func (v *v1) resources(limits Limits) *specs.LinuxResources {
	resources := &specs.LinuxResources{}
	if v.has("memory") {
		limit, reserved := or(limits.Memory, maxMemory), or(limits.Reserved, maxMemory)
		resources.Memory = &specs.LinuxMemory{Limit: &limit, Reservation: &reserved}
		if v.swap {
			resources.Memory.Swap = &limit // memory and swap together
		}
	}
	if v.has("cpu") {
		shares, quota, period := or(limits.CPUShares, defaultShares), limits.quota(), uint64(cpuPeriod)
		resources.CPU = &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period}
	}
	if v.has("pids") {
		resources.Pids = &specs.LinuxPids{Limit: or(limits.PIDs, maxPIDs)}
	}
	return resources
}

type v1Group struct {
	*v1
	name  string
	group cgroup1.Cgroup
}

func (g *v1Group) file(controller, file string) string {
	return filepath.Join(g.root, controller, g.name, file)
}

func (g *v1Group) add(pid int) error {
	return g.group.AddProc(uint64(pid))
}

func (g *v1Group) start(cmd *exec.Cmd) error {
	dirs := make([]string, len(g.controllers))
	for i, controller := range g.controllers {
		dirs[i] = g.file(controller, "")
	}
	return startFromThread(cmd, g.v1.roots(), dirs)
}

// update raises the limit of memory and swap together first: the kernel never lets it be below the limit of memory, and the
// library only orders the two when it lowers them.
func (g *v1Group) update(limits Limits) error {
	resources := g.resources(limits)
	if g.swap && resources.Memory != nil {
		current, err := readNumber(g.file("memory", "memory.limit_in_bytes"))
		if err != nil {
			return err
		}
		if uint64(*resources.Memory.Limit) > current {
			if err := write(g.file("memory", "memory.memsw.limit_in_bytes"), strconv.FormatInt(*resources.Memory.Limit, 10)); err != nil {
				return err
			}
		}
	}
	return g.group.Update(resources)
}

// kill: v1 has no way to kill a group.
func (g *v1Group) kill() error { return errors.ErrUnsupported }

func (g *v1Group) freeze(stop bool) error {
	state := "THAWED"
	if stop {
		state = "FROZEN"
	}
	return write(g.file("freezer", "freezer.state"), state)
}

func (g *v1Group) frozen() (bool, error) {
	state, err := os.ReadFile(g.file("freezer", "freezer.state"))
	return strings.TrimSpace(string(state)) == "FROZEN", err
}

func (g *v1Group) useCPUs(dir string) error {
	pids, err := g.group.Processes(cgroup1.Freezer, true)
	if err != nil {
		return err
	}
	for _, process := range pids {
		if err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(process.Pid)); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func (g *v1Group) oomKills() (uint64, error) {
	control, err := readKeyed(g.file("memory", "memory.oom_control"))
	return control["oom_kill"], err
}

func (g *v1Group) oomEvents() (*os.File, error) {
	fd, err := g.group.OOMEventFD()
	if err != nil {
		return nil, err
	}
	return pollable(int(fd), "oom events")
}

func (g *v1Group) stats() (Stats, error) {
	r := reader{dir: func(controller string) string { return g.file(controller, "") }, has: g.has}
	memory, oom, cpu := r.keyed("memory", "memory.stat"), r.keyed("memory", "memory.oom_control"), r.keyed("cpu", "cpu.stat")
	return Stats{
		CPU:              r.duration("cpuacct", "cpuacct.usage"),
		CPUUser:          r.duration("cpuacct", "cpuacct.usage_user"),
		CPUSystem:        r.duration("cpuacct", "cpuacct.usage_sys"),
		ThrottledPeriods: cpu["nr_throttled"],
		Throttled:        nanoseconds(cpu["throttled_time"]),
		RSS:              memory["total_rss"] + memory["total_shmem"],
		Cache:            less(memory["total_cache"], memory["total_shmem"]),
		Swap:             memory["total_swap"],
		MappedFile:       memory["total_mapped_file"],
		Usage:            r.number("memory", "memory.usage_in_bytes"),
		MaxUsage:         r.number("memory", "memory.max_usage_in_bytes"),
		Kernel:           r.number("memory", "memory.kmem.usage_in_bytes"),
		OOMKills:         oom["oom_kill"],
		PIDs:             r.number("pids", "pids.current"),
	}, r.err
}
