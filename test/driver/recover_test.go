package driver

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// replace ends the plugin, tasks and all as they are, and starts the next one.
func (n *node) replace(t *testing.T) {
	t.Helper()
	n.cancel()
	n.plug(t)
}

// TestRecover: the next plugin finds what the former one started, and can do all with it.
func TestRecover(t *testing.T) {
	n := newNode(t, nil)
	running := n.newTask(t, false, n.shell("trap 'exit 6' TERM; echo ready; while true; do sleep 0.1; done"), nil)
	ended := n.newTask(t, false, n.shell("while ! test -e /local/go; do sleep 0.1; done; exit 5"), nil)
	gone := n.newTask(t, false, n.shell("exit 4"), nil)
	for _, task := range []*task{running, ended, gone} {
		task.start(t)
	}
	running.says(t, "ready")
	gone.wait(t)
	if err := n.DestroyTask(gone.ID, false); err != nil {
		t.Fatal(err)
	}
	n.replace(t)
	ended.touch(t, "go")
	eventually.True(t, "the task ends without a plugin", func() bool {
		_, err := handoff.ReadExit(filepath.Join(n.config.DataDir, "tasks", strings.ReplaceAll(ended.ID, "/", "-")))
		return err == nil
	})

	for _, task := range []*task{running, ended} {
		if err := n.RecoverTask(task.handle); err != nil {
			t.Fatalf("recover: %v", err)
		}
	}
	if err := n.RecoverTask(gone.handle); !notFound(err) {
		t.Errorf("a task that was destroyed: %v", err)
	}
	if end := ended.wait(t); end.ExitCode != 5 {
		t.Errorf("the one that ended meanwhile: %+v", end)
	}
	status, err := n.InspectTask(running.ID)
	if err != nil || status.State != drivers.TaskStateRunning {
		t.Fatalf("the one that runs: %+v, %v", status, err)
	}
	if out := running.exec(t, "echo in it"); out != "in it\n" {
		t.Errorf("exec said %q", out)
	}
	running.stop(t, patience, "")
	if end := running.wait(t); end.ExitCode != 6 {
		t.Errorf("after stop: %+v", end)
	}
	if err := n.Impl().RecoverTask(nil); err == nil {
		t.Error("no handle was recovered")
	}
}

// TestStartedTwice: a plugin that died before it could say that it started a task is asked for it again.
func TestStartedTwice(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("echo one start; exec sleep 1000"), nil)
	task.start(t)
	task.says(t, "one start")
	if _, _, err := n.StartTask(task.TaskConfig); err == nil {
		t.Error("a task that runs was started")
	}
	n.replace(t)
	if _, _, err := n.StartTask(task.TaskConfig); err != nil {
		t.Fatal(err)
	}
	if out := task.exec(t, "cat /alloc/logs/box.stdout.0"); out != "one start\n" {
		t.Errorf("it was started again: %q", out)
	}
	if err := n.DestroyTask(task.ID, true); err != nil { // before the second plugin ends
		t.Error(err)
	}
}
