//go:build long

package chaos

import (
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// TestCrowdThawsAtOnce: many workers of one function that thaw at the same time all become ready.
func TestCrowdThawsAtOnce(t *testing.T) {
	size := long(20, 50)
	err := shared.deployCopy("many", "crowd", func(group *api.TaskGroup, task *api.Task) {
		most, cpu, memory := int64(size), 20, 128 // the least that a function may have
		group.Scaling.Max = &most
		group.Scaling.Policy["scaledown_window"], group.Scaling.Policy["zero_window"] = "2s", "2s"
		task.Resources.CPU, task.Resources.MemoryMB = &cpu, &memory
	})
	if err != nil {
		t.Fatal(err)
	}
	loaded := mustSay(t, "crowd").Loaded // the first one leaves the snapshot
	shared.AwaitIdle(t, app, "crowd")
	stay(t)
	began := time.Now()
	scale(t, size)
	eventually.True(t, "all workers are ready", func() bool { return shared.Look(t, app, "crowd").Ready == size })
	took := time.Since(began)
	thawed := 0
	for _, beat := range shared.Workers(t, app, "crowd") {
		if beat.Thawed {
			thawed++
		}
	}
	if thawed != size {
		t.Errorf("%d of %d workers were thawed", thawed, size)
	}
	if said := mustSay(t, "crowd"); said.Loaded != loaded {
		t.Error("a worker answered that was not thawed from the snapshot")
	}
	t.Logf("%d workers were ready %s after Nomad was asked for them, %d of them thawed", size, took, thawed)
	if _, _, err := shared.nomad.Jobs().Deregister(app+".crowd", true, nil); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "no worker of the crowd is left", func() bool { return len(units(t, "tasks", "crowd")) == 0 })
}

// stay has the crowd's workers stay although nobody needs them.
func stay(t *testing.T) {
	t.Helper()
	err := shared.deployCopy("crowd", "crowd", func(group *api.TaskGroup, _ *api.Task) {
		group.Scaling.Policy["scaledown_window"], group.Scaling.Policy["zero_window"] = "10m", "10m"
	})
	if err != nil {
		t.Fatal(err)
	}
}

// scale asks Nomad for that many workers of the crowd.
func scale(t *testing.T, count int) {
	t.Helper()
	if _, _, err := shared.nomad.Jobs().Scale(app+".crowd", "worker", &count, "for the test", false, nil, nil); err != nil {
		t.Fatal(err)
	}
}
