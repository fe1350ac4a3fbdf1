package storm

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/test/clustertest"
)

// awaitNothingLeft waits until the nodes have nothing of a task any more. Their plugins are killed once more before, for what is made
// ahead of need goes with the plugin.
func (w *world) awaitNothingLeft(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		eventually.True(t, "no worker is left on "+n.name, func() bool { return len(n.supervisors()) == 0 })
		pids := plugins(n)
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range w.nodes {
		var left []string
		defer func() {
			for _, what := range left {
				t.Errorf("%s has %s", n.name, what)
			}
		}()
		eventually.True(t, n.name+" has nothing left", func() bool {
			left = n.left()
			return len(left) == 0
		})
	}
}

// left is what a node has of tasks: processes, mounts, control groups, networks, files.
func (n *node) left() (left []string) {
	for _, p := range n.processes() {
		if name := filepath.Base(p.args[0]); name != "nomad" && name != "freshet-driver" {
			left = append(left, "a process "+strings.Join(p.args, " "))
		}
	}
	inv := make(clustertest.Inventory)
	place := clustertest.Place{Dir: n.dir, DriverDir: filepath.Join(n.dir, "driver"), CgroupParent: n.groups, PID: n.PID()}
	if err := n.place.Do(func() error { return place.Count(inv) }); err != nil {
		return append(left, "something that changes while it is looked at: "+err.Error())
	}
	for kind, names := range inv {
		for _, name := range names {
			if ofTask(kind, name, n.groups) {
				left = append(left, kind+": "+name)
			}
		}
	}
	return left
}

// ofTask tells what an inventory names that belongs to a task. Images, snapshots and networks made ahead do not.
func ofTask(kind, name, groups string) bool {
	switch kind {
	case "control groups":
		return filepath.Base(name) != groups
	case "mounts":
		return strings.HasPrefix(name, "/driver/tasks/") || strings.HasPrefix(name, "/driver/ahead/")
	case "files":
		folder, rest, _ := strings.Cut(strings.TrimPrefix(name, "network/"), "/")
		return rest != "" && (folder == "tasks" || folder == "ahead")
	}
	return false
}
