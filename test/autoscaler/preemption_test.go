package autoscaler

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
)

// TestTwoNodes has what is about full nodes.
func TestTwoNodes(t *testing.T) {
	secondNode(t)
	t.Run("batch functions share", batchFunctionsShareTheNodes)
	t.Run("online work wins over batch", onlineWorkWinsOverBatch)
}

// onlineWorkWinsOverBatch: two nodes full of batch workers in the middle of long calls. An online function gets its workers at
// once by preemption, and the calls that lost theirs run again and end well.
func onlineWorkWinsOverBatch(t *testing.T) {
	const length = 6 * time.Second
	scheduler := &api.SchedulerConfiguration{PreemptionConfig: api.PreemptionConfig{ServiceSchedulerEnabled: true}}
	if _, _, err := shared.nomad.Operator().SchedulerSetConfiguration(scheduler, nil); err != nil {
		t.Fatal(err)
	}
	memory := int(firstNode(t).NodeResources.Memory.MemoryMB) * 45 / 100 // two workers fill a node
	sized := func(priority, most int) func(*api.Job) {
		return func(job *api.Job) {
			job.Priority = &priority
			job.TaskGroups[0].Scaling.Max = new(int64(most))
			job.TaskGroups[0].Scaling.Policy["target_inflight"] = 1
			task := job.TaskGroups[0].Tasks[0]
			task.Config["concurrency"] = 1
			task.Resources.MemoryMB, task.KillTimeout = &memory, new(time.Second)
		}
	}
	variant(t, "batch", sized(20, 4))
	variant(t, "online", sized(90, 2))
	c := client.New(shared.state.Gateway())
	var batch, online sync.WaitGroup
	var mu sync.Mutex
	again := 0
	call := func(function string, length time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
		defer cancel()
		got, err := wait(ctx, c, function, length)
		if err != nil || got.Millis < length.Milliseconds() {
			t.Errorf("%s: got %+v, %v", function, got, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if got.Attempt > 1 {
			again++
		}
	}
	for range 5 {
		batch.Go(func() { call("batch", length) })
	}
	eventually.True(t, "four batch workers run", func() bool { return running(t, "batch") == 4 })
	began := time.Now()
	for range 2 {
		online.Go(func() { call("online", 100*time.Millisecond) })
	}
	online.Wait()
	took := time.Since(began)
	preempted := 0
	allocs, _, err := shared.nomad.Jobs().Allocations("scaled.batch", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, alloc := range allocs {
		if alloc.DesiredStatus == api.AllocDesiredStatusEvict || strings.Contains(alloc.DesiredDescription, "reempted") {
			preempted++
		}
	}
	batch.Wait()
	t.Logf("online calls were answered in %s, by %d preempted workers; %d batch calls ran again", took, preempted, again)
	if preempted == 0 {
		t.Error("nothing was preempted")
	}
	if took > length {
		t.Errorf("online calls waited %s", took)
	}
	if again == 0 {
		t.Error("no batch call lost its worker: the nodes were not full")
	}
}
