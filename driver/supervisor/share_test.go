package supervisor_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/driver/supervisor"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/handoff"
)

const keyLine = "one MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"

// freeze stores a snapshot and returns its key.
func freeze(t *testing.T, dir string) string {
	t.Helper()
	store, err := snapshot.Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := snapshot.CPUDigest()
	if err != nil {
		t.Fatal(err)
	}
	inputs := snapshot.Inputs{App: "app", CPU: cpu}
	key, err := inputs.Key()
	if err != nil {
		t.Fatal(err)
	}
	making, err := store.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(making.Dir, "pages.img"), []byte("pages"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := making.Commit(inputs); err != nil {
		t.Fatal(err)
	}
	return key
}

func TestPushSharesTheTasksSnapshot(t *testing.T) {
	dir, bucket := t.TempDir(), t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte(keyLine), 0o600); err != nil {
		t.Fatal(err)
	}
	task := handoff.Task{Snapshots: &handoff.Snapshots{Dir: filepath.Join(dir, "here"), Key: freeze(t, filepath.Join(dir, "here"))}}
	if err := supervisor.Push(t.Context(), task); err == nil {
		t.Error("a task that shares nothing was pushed")
	}
	task.Snapshots.Share = &handoff.Share{Blobs: "file://" + bucket, KeyFile: keys, FetchTimeout: time.Minute, MaxAge: time.Hour}
	for range 2 { // the second finds it done
		if err := supervisor.Push(t.Context(), task); err != nil {
			t.Fatal(err)
		}
	}
	store, err := blobs.Open(t.Context(), "file://"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }() // read only
	parsed, err := snapshot.ParseKeys([]byte(keyLine))
	if err != nil {
		t.Fatal(err)
	}
	there, err := snapshot.Open(filepath.Join(dir, "there"), 0)
	if err != nil {
		t.Fatal(err)
	}
	use, err := snapshot.NewRemote(store, parsed).Fetch(t.Context(), there, task.Snapshots.Key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer use.Release()
	if data, err := os.ReadFile(filepath.Join(use.Dir, "pages.img")); err != nil || string(data) != "pages" {
		t.Errorf("the other node got %q, %v", data, err)
	}
}

func TestPushOfWhatIsGoneIsNothing(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte(keyLine), 0o600); err != nil {
		t.Fatal(err)
	}
	share := &handoff.Share{Blobs: "file://" + t.TempDir(), KeyFile: keys}
	gone := handoff.Task{Snapshots: &handoff.Snapshots{Dir: filepath.Join(dir, "here"), Key: "gone", Share: share}}
	if err := supervisor.Push(t.Context(), gone); err != nil {
		t.Error(err)
	}
	share.KeyFile = filepath.Join(dir, "missing")
	if err := supervisor.Push(t.Context(), gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its key file: %v", err)
	}
}
