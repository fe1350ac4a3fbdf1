//go:build long

package chaos

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// units lists the directories of a function's supervisors that run: "tasks" or "ahead" says of which.
func units(t *testing.T, kind, function string) []string {
	t.Helper()
	file := handoff.TaskFile
	if kind == "ahead" {
		file = handoff.TemplateFile
	}
	files, err := filepath.Glob(filepath.Join(shared.State.DriverDir(), kind, "*", file))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range files {
		dir := filepath.Dir(path)
		task, err := handoff.ReadTask(path)
		if err != nil || task.Identity.Function != function {
			continue // gone meanwhile, or another's
		}
		if kind == "ahead" {
			if _, err := os.Stat(filepath.Join(dir, handoff.TaskFile)); err == nil {
				continue // it was given a task
			}
		}
		if process, err := handoff.FindProcess(dir); err == nil {
			process.Close()
			found = append(found, dir)
		}
	}
	return found
}

// supervisor is the process of a unit; 0 when it has ended.
func supervisor(dir string) int {
	process, err := handoff.FindProcess(dir)
	if err != nil {
		return 0
	}
	defer process.Close()
	return process.PID
}

// parts are the processes of a unit's sandbox whose program has that name: "runsc-sandbox" or "runsc-gofer".
func parts(t *testing.T, dir, name string) []int {
	t.Helper()
	if target, err := os.Readlink(dir); err == nil {
		dir = target
	}
	groups, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", "freezer", shared.CgroupParent(), filepath.Base(dir)+".guest", "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) == 0 { // version 2
		groups = []string{filepath.Join("/sys/fs/cgroup", shared.CgroupParent(), filepath.Base(dir)+".guest", "cgroup.procs")}
	}
	data, err := os.ReadFile(groups[0])
	if err != nil {
		return nil // gone meanwhile
	}
	var found []int
	for _, text := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		if cmdline, err := os.ReadFile(filepath.Join("/proc", text, "cmdline")); err == nil && strings.HasPrefix(string(cmdline), name+"\x00") {
			found = append(found, pid)
		}
	}
	return found
}

// awaitStandby waits until a supervisor made ahead of the function holds a sandbox, and the plugin waits no more for it.
func awaitStandby(t *testing.T, function string) {
	t.Helper()
	eventually.True(t, "a standby of "+function+" is there", func() bool {
		dirs := units(t, "ahead", function)
		return len(dirs) == 1 && len(parts(t, dirs[0], "runsc-sandbox")) > 0
	})
}

// endStandbys kills the supervisors of a function that were made ahead, and waits until they are gone.
func endStandbys(t *testing.T, function string) {
	t.Helper()
	eventually.True(t, "no standby is left", func() bool {
		dirs := units(t, "ahead", function)
		for _, dir := range dirs {
			if pid := supervisor(dir); pid != 0 {
				kill(t, pid)
			}
		}
		return len(dirs) == 0
	})
}

// snapshotOf finds the snapshot of a function in the node's store.
func snapshotOf(t *testing.T, function string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared.State.DriverDir(), "snapshots", "*", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // collected meanwhile
		}
		var manifest struct {
			Inputs struct{ App, Function string }
		}
		if err := json.Unmarshal(data, &manifest); err != nil {
			t.Fatal(err)
		}
		if manifest.Inputs.App == app && manifest.Inputs.Function == function && !strings.HasSuffix(filepath.Dir(file), ".bad") {
			return filepath.Dir(file)
		}
	}
	return ""
}
