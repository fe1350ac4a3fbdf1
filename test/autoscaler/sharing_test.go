package autoscaler

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
)

// batchFunctionsShareTheNodes: two functions of one priority, each with more calls than all nodes could run. The one that was there
// first has all the room; then each gets its half, without a call cut short, and neither starves.
func batchFunctionsShareTheNodes(t *testing.T) {
	const room = 6                                                       // workers, on two nodes
	memory := int(firstNode(t).NodeResources.Memory.MemoryMB) * 30 / 100 // three fill a node
	batch := func(job *api.Job) {
		job.Priority = new(20)
		job.TaskGroups[0].Scaling.Max = new(int64(room))
		job.TaskGroups[0].Scaling.Policy["target_inflight"] = 1
		task := job.TaskGroups[0].Tasks[0]
		task.Config["concurrency"] = 1
		task.Resources.MemoryMB = &memory
	}
	variant(t, "first", batch)
	variant(t, "late", batch)
	c := client.New(shared.state.Gateway())
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer cancel()
	ended := map[string]*atomic.Int64{"first": {}, "late": {}}
	load := func(function string) {
		for range 2 * room {
			callers.Go(func() {
				for ctx.Err() == nil {
					if got, err := wait(context.WithoutCancel(ctx), c, function, 400*time.Millisecond); err != nil || got.Attempt != 1 {
						t.Errorf("%s: got %+v, %v", function, got, err)
					}
					ended[function].Add(1)
				}
			})
		}
	}
	load("first")
	eventually.True(t, "the first function has all the room", func() bool { return running(t, "first") == room })
	began := time.Now()
	load("late")
	eventually.True(t, "each has its half", func() bool { return running(t, "first") == room/2 && running(t, "late") == room/2 })
	halved := time.Since(began)
	first, late := ended["first"].Load(), ended["late"].Load()
	eventually.True(t, "some calls end", func() bool { return ended["first"].Load()+ended["late"].Load() > first+late+80 })
	first, late = ended["first"].Load()-first, ended["late"].Load()-late
	if halved > 15*time.Second {
		t.Errorf("each had its half only after %s", halved)
	}
	t.Logf("each had its half after %s; then %d calls of the one ended, and %d of the other", halved, first, late)
	if first < late/2 || late < first/2 {
		t.Errorf("%d calls of the one ended, and %d of the other", first, late)
	}
}
