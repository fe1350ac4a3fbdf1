package autoscaler

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/sdk/client"
)

// addDevice gives the node one more simulated device.
func addDevice(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join(shared.devices(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
}

// variant deploys a copy of the function a under another name, changed.
func variant(t *testing.T, name string, change func(*api.Job)) {
	t.Helper()
	job, _, err := shared.nomad.Jobs().Info("scaled.a", nil)
	if err != nil {
		t.Fatal(err)
	}
	job.ID, job.Name = new("scaled."+name), new("scaled."+name)
	job.Meta[jobs.MetaFunction] = name
	job.TaskGroups[0].Count = new(0)
	change(job)
	if err := jobs.Register(t.Context(), shared.nomad, job); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := jobs.Stop(context.WithoutCancel(t.Context()), shared.nomad, "default", "scaled."+name); err != nil {
			t.Error(err)
		}
		eventually.True(t, name+" has no workers left", func() bool { return running(t, name) == 0 })
	})
	eventually.True(t, "the gateway knows "+name, func() bool {
		response, err := http.Get(shared.state.Gateway() + "/v1/functions/scaled/" + name)
		if err != nil {
			return false
		}
		_ = response.Body.Close() // its status says it
		return response.StatusCode == http.StatusOK
	})
}

// running is how many of a function's workers Nomad sees running.
func running(t *testing.T, function string) int {
	t.Helper()
	summary, _, err := shared.nomad.Jobs().Summary("scaled."+function, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, group := range summary.Summary {
		sum += group.Running
	}
	return sum
}

// counts are those of a job's groups.
func counts(t *testing.T, name string) map[string]int {
	t.Helper()
	job, _, err := shared.nomad.Jobs().Info("scaled."+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for _, group := range job.TaskGroups {
		counts[*group.Name] = *group.Count
	}
	return counts
}

// TestWorkersMoveToTheNextGroupAndBack: one device for three workers. Two go to the group that needs none, within two seconds, and
// return when there are devices.
func TestWorkersMoveToTheNextGroupAndBack(t *testing.T) {
	eventually.True(t, "the node has the device", func() bool { return devicesOf(t) == 1 })
	variant(t, "preferring", func(job *api.Job) {
		other := *job.TaskGroups[0]
		task := *other.Tasks[0]
		resources := *task.Resources
		resources.Devices = []*api.RequestedDevice{{Name: "nomad/file/mock", Count: new(uint64(1))}}
		task.Resources = &resources
		other.Name, other.Tasks = new("device"), []*api.Task{&task}
		job.TaskGroups = []*api.TaskGroup{&other, job.TaskGroups[0]}
	})
	c := client.New(shared.state.Gateway())
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer cancel()
	for range 12 { // of which a worker runs four
		callers.Go(func() {
			for ctx.Err() == nil {
				got, err := wait(context.WithoutCancel(ctx), c, "preferring", 500*time.Millisecond)
				if err != nil || got.Attempt != 1 {
					t.Errorf("got %+v, %v", got, err)
				}
			}
		})
	}
	eventually.True(t, "two workers are in the other group", func() bool { return counts(t, "preferring")["worker"] == 2 })
	status, _, err := shared.nomad.Jobs().ScaleStatus("scaled.preferring", nil)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Duration(firstOf(status.TaskGroups["worker"].Events).Time - firstOf(status.TaskGroups["device"].Events).Time) //nolint:gosec // near times
	t.Logf("moved after %s: %v", took, counts(t, "preferring"))
	if took > 2*time.Second {
		t.Errorf("moved only after %s", took)
	}
	addDevice(t, "two")
	addDevice(t, "three")
	began := time.Now()
	eventually.True(t, "all workers have devices", func() bool {
		now := counts(t, "preferring")
		return now["device"] == 3 && now["worker"] == 0
	})
	t.Logf("returned after %s", time.Since(began))
}

// firstOf is the oldest of the events, which Nomad lists from the newest on.
func firstOf(events []api.ScalingEvent) api.ScalingEvent { return events[len(events)-1] }

// devicesOf is how many the first node has.
func devicesOf(t *testing.T) int {
	t.Helper()
	count := 0
	for _, device := range firstNode(t).NodeResources.Devices {
		count += len(device.Instances)
	}
	return count
}
