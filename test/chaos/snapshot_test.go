//go:build long

package chaos

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadSnapshots: whatever is wrong with a snapshot, it is found out, kept aside with the reason, and told; the worker starts cold and
// answers, and the next one thaws again.
func TestBadSnapshots(t *testing.T) {
	for _, damage := range []struct {
		name string
		do   func(t *testing.T, dir string)
	}{
		{"damaged pages", func(t *testing.T, dir string) { scribble(t, filepath.Join(dir, "pages.img")) }},
		{"damaged state", func(t *testing.T, dir string) { scribble(t, filepath.Join(dir, "checkpoint.img")) }},
		{"truncated", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "pages.img")) }},
		{"of another processor", func(t *testing.T, dir string) {
			edit(t, dir, func(manifest map[string]any) {
				manifest["inputs"].(map[string]any)["cpu"] = strings.Repeat("0", 64)
			})
		}},
		{"half written", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "manifest.json")) }},
	} {
		t.Run(damage.name, func(t *testing.T) {
			first := mustSay(t, "one")
			shared.AwaitIdle(t, app, "one")
			dir := snapshotOf(t, "one")
			if dir == "" {
				t.Fatal("there is no snapshot")
			}
			if err := os.RemoveAll(dir + ".bad"); err != nil {
				t.Fatal(err)
			}
			damage.do(t, dir)
			endStandbys(t, "one") // those were thawed before
			told, err := shared.Freshet("logs", "misbehave.one")
			if err != nil {
				t.Fatalf("%v: %s", err, told)
			}
			second := mustSay(t, "one")
			if second.Loaded == first.Loaded {
				t.Fatal("it was thawed nevertheless")
			}
			reason, err := os.ReadFile(filepath.Join(dir+".bad", "reason.txt"))
			if err != nil {
				t.Errorf("the snapshot is not kept for a look: %v", err)
			}
			t.Logf("the reason is told as: %s", strings.TrimSpace(string(reason)))
			shared.AwaitIdle(t, app, "one")
			if third := mustSay(t, "one"); third.Loaded != second.Loaded {
				t.Error("the next one did not thaw")
			}
			const says = "starting cold"
			if now, err := shared.Freshet("logs", "misbehave.one"); err != nil || strings.Count(now, says) <= strings.Count(told, says) {
				t.Errorf("the function's log does not say so: %v", err)
			}
			shared.AwaitIdle(t, app, "one")
		})
	}
}

// TestSnapshotWhoseMakerDied is swept, and hinders nobody.
func TestSnapshotWhoseMakerDied(t *testing.T) {
	mustSay(t, "one")
	shared.AwaitIdle(t, app, "one")
	dir := snapshotOf(t, "one")
	if err := os.Rename(dir, dir+".part"); err != nil {
		t.Fatal(err)
	}
	endStandbys(t, "one")
	mustSay(t, "one")
	shared.AwaitIdle(t, app, "one")
	if _, err := os.Stat(dir + ".part"); err == nil {
		t.Error("half a snapshot is left")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("no new one was made: %v", err)
	}
}

func scribble(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte(strings.Repeat("scribble", 512)), 8192); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// edit changes a snapshot's manifest.
func edit(t *testing.T, dir string, change func(manifest map[string]any)) {
	t.Helper()
	path := filepath.Join(dir, "manifest.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var manifest map[string]any
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	change(manifest)
	if data, err = json.Marshal(manifest); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
