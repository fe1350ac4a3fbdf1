package driver

import (
	"os"
	"runtime"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// memoryMB is what the task reserved.
func memoryMB(cfg *drivers.TaskConfig) int64 {
	if cfg.Resources == nil || cfg.Resources.NomadResources == nil {
		return 0
	}
	return cfg.Resources.NomadResources.Memory.MemoryMB
}

// limitsOf are the limits of the guest's control group, and the directory of Nomad's own, whose processors it runs on.
func (s *starter) limitsOf(cfg *drivers.TaskConfig, config spec.Config) (cgroup.Limits, string) {
	pids := s.config.PidsLimit
	if config.PidsLimit > 0 {
		pids = int64(config.PidsLimit)
	}
	limits := cgroup.Limits{PIDs: cgroup.GuestPIDs(pids)}
	if cfg.Resources == nil {
		return limits, ""
	}
	if nomad := cfg.Resources.NomadResources; nomad != nil {
		limits.CPUShares = uint64(max(nomad.Cpu.CpuShares, 2)) // the least that the kernel takes
		reserved := nomad.Memory.MemoryMB
		most := max(reserved, nomad.Memory.MemoryMaxMB, config.MemoryHardLimit)
		if most > 0 {
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
