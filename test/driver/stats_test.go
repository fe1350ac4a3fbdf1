package driver

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"
)

func cpuMax(share float64) string {
	return fmt.Sprintf("%d 100000", int(share*float64(runtime.NumCPU())*100_000))
}

// TestStats: what a task under load uses shows within a few samples, in the numbers that `nomad alloc status -stats` prints.
func TestStats(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("dd if=/dev/zero of=/dev/shm/held bs=1M count=64 2>/dev/null; echo held; while true; do :; done"), nil)
	task.start(t)
	task.says(t, "held")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	samples, err := n.TaskStats(ctx, task.ID, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for {
		select {
		case sample, ok := <-samples:
			if !ok {
				t.Fatal("the samples ended before the task")
			}
			cpu, memory := sample.ResourceUsage.CpuStats, sample.ResourceUsage.MemoryStats
			if cpu.Percent > 100*float64(runtime.NumCPU())*1.2 || memory.Usage > 512<<20 || memory.Usage < 64<<20 {
				t.Fatalf("%+v %+v", cpu, memory)
			}
			// A loop of one process takes a processor, on a machine that others use a part of one; in ticks, as PercentTicks says 4,000
			// for all.
			if cpu.Percent > 20 && cpu.TotalTicks > 0.19*4000/float64(runtime.NumCPU()) && cpu.UserMode+cpu.SystemMode > 15 &&
				memory.RSS+memory.Cache > 64<<20 && memory.MaxUsage >= memory.Usage/2 {
				return
			}
		case <-deadline:
			t.Fatal("the load never showed")
		}
	}
}
