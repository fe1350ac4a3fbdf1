package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// items is the size of the maps that components are killed in: long enough to be in the middle.
const items = 10_000

// TestNothingIsLostWhenAComponentDies kills each component in the middle of a map: every item is answered, once.
func TestNothingIsLostWhenAComponentDies(t *testing.T) {
	for name, victim := range map[string]func(*testing.T) int{
		"supervisor": func(t *testing.T) int { return shared.Process(t, "freshet-worker", shared.Dir) },
		"plugin":     func(t *testing.T) int { return shared.Plugin(t) },
		"nomad":      func(t *testing.T) int { return shared.Agent(t) },
		"gateway":    func(t *testing.T) int { return shared.Process(t, "freshet", "gateway --listen") },
		"autoscaler": func(t *testing.T) int { return shared.Process(t, "freshet", "autoscaler --listen") },
		"nats":       func(t *testing.T) int { return shared.Process(t, "freshet", "nats --state "+shared.Dir) },
	} {
		t.Run(name, func(t *testing.T) {
			run := shared.Map(t, "misbehave.slow", items)
			run.Until(t, items/5)
			if err := syscall.Kill(victim(t), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			run.Check(t)
			eventually.True(t, "the queue is empty", func() bool { return look(t, "misbehave", "slow").Pending == 0 })
		})
	}
}

// TestSecondStartFindsEverything stops the cluster and starts it again.
func TestSecondStartFindsEverything(t *testing.T) {
	before, err := tell(t, "one", "say", "before")
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.Stop(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(shared.Dir, "driver", "tasks", "*", "pid.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range left {
		if search := exec.Command("pgrep", "-f", filepath.Dir(file)); search.Run() == nil {
			log, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "worker.log"))
			t.Errorf("a process of %s outlived the cluster; its log: %s\nup says: %s", filepath.Dir(file), log, shared.Output())
		}
	}
	if err := shared.Up(); err != nil {
		t.Fatal(err)
	}
	after, err := tell(t, "one", "say", "after")
	if err != nil || after.Loaded != before.Loaded {
		t.Errorf("after the second start: %+v, %v; want a thaw of %+v", after, err, before)
	}
}
