package cgroup

import (
	"fmt"
	"math"
)

// Limits of a group. Fields that are 0 limit nothing.
type Limits struct {
	// Memory in bytes is how much the processes may use; when they need more, they are killed. Swap is never given beside
	// it. Nomad's memory_max, or its memory where there is none.
	Memory int64
	// Reserved in bytes is what they are left with when the machine is short of memory, at most Memory. Nomad's memory where
	// there is a memory_max.
	Reserved int64
	// CPUShares weighs the group against its neighbours when processors are short: 2 to 262144. Nomad's cpu, in MHz. 0 weighs
	// as 1024 do.
	CPUShares uint64
	// CPUs is how many processors' time they may use even when others are idle, in fractions: 1.5 is 150 ms in each 100 ms.
	// At least 0.01. Only for those who ask for a hard limit; Nomad's PercentTicks times the number of processors.
	CPUs float64
	// PIDs is how many processes and threads there may be, at most 4194304. See GuestPIDs for sandboxes.
	PIDs int64
}

// GuestPIDs is the limit for a sandbox whose guest may have this many processes that run at once.
//
// A guest's processes and threads are goroutines to the host. What counts are the sentry's threads, and the stubs that the
// systrap platform runs guest code in: measured, 20 for an idle guest, 22 with 260 sleeping threads, 44 with 360 sleeping
// processes, but 4 to 5 more for each process that runs. A sandbox that comes to its limit ends, as the sentry cannot go on
// without a thread: so this limit protects the host, and is no way to tell a guest to be modest.
func GuestPIDs(processes int64) int64 {
	return min(sandboxPIDs+5*processes, maxPIDs)
}

const (
	sandboxPIDs = 128
	// cpuPeriod is the kernel's default, in microseconds.
	cpuPeriod = 100_000
	minCPUs   = 0.01
	// maxPIDs and maxMemory are what the kernel takes for no limit.
	maxPIDs       = 1 << 22
	maxMemory     = math.MaxInt64
	minCPUShares  = 2
	maxCPUShares  = 1 << 18
	defaultShares = 1024
)

// check refuses limits that the kernel would refuse with less to say; has tells which controllers there are, when not nil.
func (l Limits) check(has func(string) bool) error {
	switch {
	case l.Memory < 0:
		return fmt.Errorf("memory limit: %d: use bytes, or 0 for none", l.Memory)
	case l.Reserved < 0 || l.Memory > 0 && l.Reserved > l.Memory:
		return fmt.Errorf("reserved memory: %d: use bytes, at most the limit of %d", l.Reserved, l.Memory)
	case l.CPUShares != 0 && (l.CPUShares < minCPUShares || l.CPUShares > maxCPUShares):
		return fmt.Errorf("cpu shares: %d: use %d to %d, or 0 for the default", l.CPUShares, minCPUShares, maxCPUShares)
	case l.CPUs != 0 && !(l.CPUs >= minCPUs && l.CPUs <= math.MaxInt32):
		return fmt.Errorf("cpus: %g: use a number of processors from %g on, or 0 for no limit", l.CPUs, minCPUs)
	case l.PIDs < 0 || l.PIDs > maxPIDs:
		return fmt.Errorf("pids limit: %d: use up to %d, or 0 for none", l.PIDs, maxPIDs)
	}
	if has == nil {
		return nil
	}
	for _, needed := range []struct {
		limit, controller string
		set               bool
	}{
		{"memory limit", "memory", l.Memory != 0 || l.Reserved != 0},
		{"cpu limit", "cpu", l.CPUShares != 0 || l.CPUs != 0},
		{"pids limit", "pids", l.PIDs != 0},
	} {
		if needed.set && !has(needed.controller) {
			return fmt.Errorf("%s: this machine has no %q controller: enable it (kernel parameter cgroup_enable=%s)", needed.limit, needed.controller, needed.controller)
		}
	}
	return nil
}

// or returns the value, or what stands for no limit.
func or[T int64 | uint64](value, none T) T {
	if value == 0 {
		return none
	}
	return value
}

// quota is CPUs in microseconds of each period; -1 for no limit.
func (l Limits) quota() int64 {
	if l.CPUs == 0 {
		return -1
	}
	return int64(math.Round(l.CPUs * cpuPeriod))
}
