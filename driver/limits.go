package driver

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// memoryMB is what the task reserved.
func memoryMB(cfg *drivers.TaskConfig) int64 {
	if cfg.Resources == nil || cfg.Resources.NomadResources == nil {
		return 0
	}
	return cfg.Resources.NomadResources.Memory.MemoryMB
}

// mostMB is what the task may use at most; 0 for no bound.
func mostMB(cfg *drivers.TaskConfig, config spec.Config) int64 {
	if cfg.Resources == nil || cfg.Resources.NomadResources == nil {
		return 0
	}
	memory := cfg.Resources.NomadResources.Memory
	return max(memory.MemoryMB, memory.MemoryMaxMB, config.MemoryHardLimit)
}

// pidsLimit is how many processes the task may have.
func pidsLimit(config spec.Config, plugin Config) int64 {
	if config.PidsLimit > 0 {
		return int64(config.PidsLimit)
	}
	return plugin.PidsLimit
}

// limitsOf are the limits of the guest's control group, and the directory of Nomad's own, whose processors it runs on.
func (s *starter) limitsOf(cfg *drivers.TaskConfig, config spec.Config) (cgroup.Limits, string) {
	limits := cgroup.Limits{PIDs: cgroup.GuestPIDs(pidsLimit(config, s.config))}
	if cfg.Resources == nil {
		return limits, ""
	}
	if nomad := cfg.Resources.NomadResources; nomad != nil {
		limits.CPUShares = uint64(max(nomad.Cpu.CpuShares, 2)) // the least that the kernel takes
		reserved := nomad.Memory.MemoryMB
		if most := mostMB(cfg, config); most > 0 {
			limits.Memory = (most + s.config.OverheadMB) << 20
			if reserved < most {
				limits.Reserved = (reserved + s.config.OverheadMB) << 20
			}
		}
	}
	linux := cfg.Resources.LinuxResources
	if linux == nil {
		return limits, ""
	}
	if config.CPUHardLimit {
		limits.CPUs = max(linux.PercentTicks*float64(runtime.NumCPU()), 0.01) // the least that the kernel takes
	}
	cpuset := linux.CpusetCgroupPath
	if _, err := os.Stat(cpuset); err != nil {
		cpuset = "" // Nomad names one also where it makes none
	}
	return limits, cpuset
}

// maxGroupName is the longest name that gVisor makes a socket of.
const maxGroupName = 70

// seenGroup is the control group that an ordinary task sees itself in, under the name that Nomad gives one on version 2. Runtimes
// size themselves by what it says.
func seenGroup(cfg *drivers.TaskConfig, config spec.Config, limits cgroup.Limits, plugin Config) *handoff.Group {
	const suffix = ".scope"
	name := invalidInName.ReplaceAllString(cfg.AllocID+"."+cfg.Name, "-")
	group := &handoff.Group{
		Name:   name[:min(len(name), maxGroupName-len(suffix))] + suffix,
		Values: map[string]string{"pids.max": strconv.FormatInt(pidsLimit(config, plugin), 10)},
	}
	if most := mostMB(cfg, config); most > 0 {
		group.Values["memory.max"] = strconv.FormatInt(most<<20, 10)
	}
	if limits.CPUs > 0 {
		group.Values["cpu.max"] = fmt.Sprintf("%d %d", int64(limits.CPUs*cpuPeriod), cpuPeriod)
	}
	if limits.CPUShares > 0 {
		group.Values["cpu.weight"] = strconv.FormatUint(weight(limits.CPUShares), 10)
	}
	return group
}

// cpuPeriod is the kernel's default, in microseconds.
const cpuPeriod = 100_000

// weight is what shares, 2 to 262144, are on version 2, 1 to 10000, by the line that container runtimes agree on.
func weight(shares uint64) uint64 {
	return 1 + (min(shares, 262144)-2)*9999/262142
}

var invalidInName = regexp.MustCompile(`[^A-Za-z0-9_.-]`)
