package jobs

import (
	"context"
	"fmt"

	"github.com/hashicorp/nomad/api"
)

// Usage is what a worker uses of its node now.
type Usage struct {
	// CPU is in percent of a processor.
	CPU float64 `json:"cpu_percent"`
	// Memory is in bytes.
	Memory uint64 `json:"memory_bytes"`
}

// UsageOf asks a worker's node what it uses.
func UsageOf(ctx context.Context, nomad *api.Client, namespace, alloc string) (Usage, error) {
	stats, err := nomad.Allocations().Stats(&api.Allocation{ID: alloc}, (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	if err != nil {
		return Usage{}, fmt.Errorf("ask what worker %s uses: %w", alloc, err)
	}
	var usage Usage
	if all := stats.ResourceUsage; all != nil {
		if all.CpuStats != nil {
			usage.CPU = all.CpuStats.Percent
		}
		if all.MemoryStats != nil {
			usage.Memory = max(all.MemoryStats.Usage, all.MemoryStats.RSS)
		}
	}
	return usage, nil
}
