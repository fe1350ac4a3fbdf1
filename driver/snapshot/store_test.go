package snapshot

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// childEnv makes the test binary another process of the node: it does one thing with the store and waits to be killed.
const childEnv = "FRESHET_TEST_CHILD"

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		child(task)
	}
	os.Exit(m.Run())
}

func child(task string) {
	verb, dir, _ := strings.Cut(task, " ")
	store, err := Open(dir, 0)
	if err != nil {
		panic(err)
	}
	switch verb {
	case "make":
		_, err = store.Make("key")
	case "use":
		_, err = store.Lookup("key")
	}
	fmt.Println("done", err)
	select {}
}

func startChild(t *testing.T, verb, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+verb+" "+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "done <nil>\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	return cmd
}

func open(t *testing.T, maxBytes int64) *Store {
	t.Helper()
	store, err := Open(t.TempDir(), maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// put stores a snapshot of the given size.
func put(t *testing.T, store *Store, key string, size int) {
	t.Helper()
	making, err := store.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(making.Dir, "pages.img"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := making.Commit(Inputs{App: key}); err != nil {
		t.Fatal(err)
	}
}

func TestCommittedSnapshotIsFound(t *testing.T) {
	store := open(t, 0)
	if _, err := store.Lookup("key"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("empty store: %v", err)
	}
	put(t, store, "key", 10)
	use, err := store.Lookup("key")
	if err != nil {
		t.Fatal(err)
	}
	defer use.Release()
	if _, err := os.Stat(filepath.Join(use.Dir, "pages.img")); err != nil {
		t.Fatal(err)
	}
}

func TestTornSnapshotIsNotFound(t *testing.T) {
	store := open(t, 0)
	put(t, store, "key", 10)
	if err := os.Truncate(filepath.Join(store.path("key"), "pages.img"), 9); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Lookup("key"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "9 bytes") {
		t.Fatalf("got %v, want a torn snapshot named", err)
	}
	put(t, store, "key", 10) // and it can be made anew
}

func TestOneMakerAtATime(t *testing.T) {
	store := open(t, 0)
	maker := startChild(t, "make", store.dir)
	if _, err := store.Make("key"); !errors.Is(err, ErrBusy) {
		t.Fatalf("second maker: %v", err)
	}
	if _, err := store.Lookup("key"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("half a snapshot was found: %v", err)
	}
	if err := maker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = maker.Wait() // it was killed
	put(t, store, "key", 10)
}

func TestMakingWhatIsThereIsRefused(t *testing.T) {
	store := open(t, 0)
	put(t, store, "key", 10)
	if _, err := store.Make("key"); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
}

func TestCollectionKeepsWhatIsUsed(t *testing.T) {
	store := open(t, 250)
	for i, key := range []string{"key", "old", "young"} {
		put(t, store, key, 80)
		used := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(store.path(key), used, used); err != nil {
			t.Fatal(err)
		}
	}
	startChild(t, "use", store.dir) // thaws "key", the oldest... which makes it the youngest
	old := time.Now().Add(-100 * time.Hour)
	if err := os.Chtimes(store.path("key"), old, old); err != nil {
		t.Fatal(err)
	}
	put(t, store, "new", 80)
	for key, want := range map[string]bool{"key": true, "old": false, "young": true, "new": true} {
		_, err := os.Stat(store.path(key))
		if got := err == nil; got != want {
			t.Errorf("snapshot %s: there %v, want %v", key, got, want)
		}
	}
}

func TestQuarantineTakesOutOfUse(t *testing.T) {
	store := open(t, 0)
	put(t, store, "key", 10)
	if err := store.Quarantine("key", "it did not wake"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Lookup("key"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a quarantined snapshot was found: %v", err)
	}
	put(t, store, "key", 10)
	reason, err := os.ReadFile(filepath.Join(store.path("key")+badSuffix, "reason.txt"))
	if err != nil || string(reason) != "it did not wake\n" {
		t.Fatalf("reason %q, %v", reason, err)
	}
}

func TestKeyDependsOnEveryInput(t *testing.T) {
	seen := make(map[string]bool)
	for _, inputs := range []Inputs{
		{},
		{App: "a"},
		{Function: "a"},
		{Code: "a"},
		{Args: []string{"a"}},
		{Env: map[string]string{"a": "b"}},
		{Concurrency: 2},
		{MemoryMB: 2},
		{Runsc: "a"},
		{CPU: "a"},
		{Protocol: 2},
		{MountTimes: []int64{1}},
	} {
		key, err := inputs.Key()
		if err != nil {
			t.Fatal(err)
		}
		if seen[key] {
			t.Errorf("%+v has the key of another", inputs)
		}
		seen[key] = true
	}
}
