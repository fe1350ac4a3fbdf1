package driver

import (
	"context"
	"runtime"
	"time"

	cstructs "github.com/hashicorp/nomad/client/structs"
	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/cgroup"
)

// sample sends what the task uses, every interval, until it ends or the context does.
func (t *task) sample(ctx context.Context, interval time.Duration, out chan<- *cstructs.TaskResourceUsage) {
	ticker := time.NewTicker(max(interval, time.Second))
	defer ticker.Stop()
	meter := meter{task: t}
	for {
		usage, err := meter.read()
		if err != nil {
			t.log.Debug().Err(err).Msg("measure task")
		} else {
			select {
			case out <- usage:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-ticker.C:
		case <-t.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// meter remembers the last sample, for the share of a processor since then.
type meter struct {
	task *task
	at   time.Time
	last cgroup.Stats
}

// read measures the guest's group and the supervisor's: both are what the task costs the node.
func (m *meter) read() (*cstructs.TaskResourceUsage, error) {
	sum, err := m.task.use()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	share := func(of, before time.Duration) float64 {
		if m.at.IsZero() || of < before {
			return 0
		}
		return float64(of-before) / float64(now.Sub(m.at)) * 100
	}
	cpu := &cstructs.CpuStats{
		Percent: share(sum.CPU, m.last.CPU), UserMode: share(sum.CPUUser, m.last.CPUUser), SystemMode: share(sum.CPUSystem, m.last.CPUSystem),
		ThrottledPeriods: sum.ThrottledPeriods, ThrottledTime: uint64(sum.Throttled.Nanoseconds()),
		Measured: []string{"System Mode", "User Mode", "Percent", "Throttled Periods", "Throttled Time"},
	}
	if ticks := ticksOfOne(m.task.config); ticks > 0 {
		cpu.TotalTicks = cpu.Percent / 100 * ticks
		cpu.Measured = append(cpu.Measured, "Total Ticks")
	}
	m.at, m.last = now, sum
	return &cstructs.TaskResourceUsage{
		ResourceUsage: &cstructs.ResourceUsage{
			MemoryStats: &cstructs.MemoryStats{
				RSS: sum.RSS, Cache: sum.Cache, Swap: sum.Swap, MappedFile: sum.MappedFile,
				Usage: sum.Usage, MaxUsage: sum.MaxUsage, KernelUsage: sum.Kernel,
				Measured: []string{"RSS", "Cache", "Swap", "Mapped File", "Usage", "Max Usage", "Kernel Usage"},
			},
			CpuStats: cpu,
		},
		Timestamp: now.UnixNano(),
	}, nil
}

// use adds up the task's control groups.
func (t *task) use() (cgroup.Stats, error) {
	var sum cgroup.Stats
	for _, id := range []string{guestID(t.unit()), supervisorID(t.unit())} {
		group, err := t.starter.groups.Load(id)
		if err != nil {
			return sum, err
		}
		stats, err := group.Stats()
		if err != nil {
			return sum, err
		}
		sum = sum.Add(stats)
	}
	return sum, nil
}

// ticksOfOne is what Nomad counts one processor as, in MHz; it says so by the task's share of all of them.
func ticksOfOne(cfg *drivers.TaskConfig) float64 {
	if cfg.Resources == nil || cfg.Resources.NomadResources == nil || cfg.Resources.LinuxResources == nil {
		return 0
	}
	part := cfg.Resources.LinuxResources.PercentTicks
	if part <= 0 {
		return 0
	}
	return float64(cfg.Resources.NomadResources.Cpu.CpuShares) / part / float64(runtime.NumCPU())
}
