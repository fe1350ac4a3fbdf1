package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// snapshotOf finds the snapshot of a function of the tests' app in the node's store.
func snapshotOf(t *testing.T, function string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared.Dir, "driver", "snapshots", "*", "manifest.json"))
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
		if manifest.Inputs.App == "misbehave" && manifest.Inputs.Function == function && !strings.HasSuffix(filepath.Dir(file), ".bad") {
			return filepath.Dir(file)
		}
	}
	return ""
}

// awaitIdle waits until a function of the tests' app has no worker.
func awaitIdle(t *testing.T, function string) {
	t.Helper()
	eventually.True(t, "no worker is left", func() bool {
		v := look(t, "misbehave", function)
		return v.Count == 0 && v.Workers == 0
	})
}

// endStandbys kills the supervisors of a function that were made ahead, and waits until they are gone.
func endStandbys(t *testing.T, function string) {
	t.Helper()
	eventually.True(t, "no standby is left", func() bool {
		files, err := filepath.Glob(filepath.Join(shared.Dir, "driver", "ahead", "*", handoff.TemplateFile))
		if err != nil {
			t.Fatal(err)
		}
		left := false
		for _, file := range files {
			dir := filepath.Dir(file)
			template, err := handoff.ReadTemplate(dir)
			if err != nil || template.Identity.Function != function {
				continue // dropped meanwhile, or another's
			}
			if process, err := handoff.FindProcess(dir); err == nil {
				left = true
				_ = process.Signal(unix.SIGKILL) // gone meanwhile
				process.Close()
			}
		}
		return !left
	})
}

// TestBrokenSnapshotIsNeverWorseThanNone: a worker that cannot thaw starts cold, and the next one thaws again.
func TestBrokenSnapshotIsNeverWorseThanNone(t *testing.T) {
	first, err := tell(t, "one", "say", "x")
	if err != nil {
		t.Fatal(err)
	}
	awaitIdle(t, "one")
	dir := snapshotOf(t, "one")
	if dir == "" {
		t.Fatal("there is no snapshot")
	}
	state, err := os.OpenFile(filepath.Join(dir, "checkpoint.img"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	endStandbys(t, "one") // those were thawed before

	second, err := tell(t, "one", "say", "x")
	if err != nil || second.Loaded == first.Loaded {
		t.Fatalf("got %+v, %v, want a cold start after %+v", second, err, first)
	}
	if _, err := os.Stat(dir + ".bad"); err != nil {
		t.Errorf("the broken snapshot is not kept for a look: %v", err)
	}
	awaitIdle(t, "one")
	if third, err := tell(t, "one", "say", "x"); err != nil || third.Loaded != second.Loaded {
		t.Errorf("got %+v, %v, want a thaw of %+v", third, err, second)
	}
	if out, err := shared.Freshet("logs", "misbehave.one"); err != nil || !strings.Contains(out, "starting cold") {
		t.Errorf("the log does not say so: %v", err)
	}
}
