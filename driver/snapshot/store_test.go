package snapshot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
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
	words := strings.Fields(task)
	verb, dir, key := words[0], words[1], words[2]
	if verb == "thaw" {
		if err := beWorker(dir, key, words[3]); err != nil {
			fmt.Fprintln(os.Stderr, words[3], err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	store, err := Open(dir, 0)
	if err != nil {
		panic(err)
	}
	switch verb {
	case "make":
		_, err = store.Make(key)
	case "use":
		_, err = store.Lookup(context.Background(), key)
	}
	fmt.Println("done", err)
	select {}
}

func startChild(t *testing.T, verb, dir, key string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+verb+" "+dir+" "+key)
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

// inputsOf are the inputs of an app's snapshot on this node, and their key.
func inputsOf(t *testing.T, app string) (Inputs, string) {
	t.Helper()
	cpu, err := CPUDigest()
	if err != nil {
		t.Fatal(err)
	}
	inputs := Inputs{App: app, CPU: cpu}
	key, err := inputs.Key()
	if err != nil {
		t.Fatal(err)
	}
	return inputs, key
}

// put stores a snapshot of an app whose pages have the given size, and returns its key.
func put(t *testing.T, store *Store, app string, size int) string {
	t.Helper()
	inputs, key := inputsOf(t, app)
	making, err := store.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	pages := make([]byte, size)
	for i := range pages {
		pages[i] = byte(i * i >> 7)
	}
	for name, data := range map[string][]byte{"pages.img": pages, "checkpoint.img": pages[:size/2]} {
		if err := os.WriteFile(filepath.Join(making.Dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := making.Commit(inputs); err != nil {
		t.Fatal(err)
	}
	return key
}

// inUse begins to use a snapshot until the test ends.
func inUse(t *testing.T, store *Store, key string) *Use {
	t.Helper()
	use, err := store.Lookup(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(use.Release)
	return use
}

func TestCommittedSnapshotIsFound(t *testing.T) {
	store := open(t, 0)
	_, key := inputsOf(t, "app")
	if _, err := store.Lookup(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Fatalf("empty store: %v", err)
	}
	put(t, store, "app", 10)
	use := inUse(t, store, key)
	if _, err := os.Stat(filepath.Join(use.Dir, "pages.img")); err != nil {
		t.Fatal(err)
	}
	if err := use.Verify(t.Context()).Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestOneMakerAtATime(t *testing.T) {
	store := open(t, 0)
	_, key := inputsOf(t, "app")
	maker := startChild(t, "make", store.dir, key)
	if _, err := store.Make(key); !errors.Is(err, ErrBusy) {
		t.Fatalf("second maker: %v", err)
	}
	if _, err := store.Lookup(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Fatalf("half a snapshot was found: %v", err)
	}
	if err := maker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = maker.Wait() // it was killed
	put(t, store, "app", 10)
}

func TestMakingWhatIsThereIsRefused(t *testing.T) {
	store := open(t, 0)
	key := put(t, store, "app", 10)
	if _, err := store.Make(key); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
}

func TestWhatBelongsToAnotherKeyIsNotCommitted(t *testing.T) {
	store := open(t, 0)
	_, key := inputsOf(t, "app")
	making, err := store.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := inputsOf(t, "other")
	if err := making.Commit(other); err == nil {
		t.Fatal("a snapshot was committed under a key that its inputs do not have")
	}
	put(t, store, "app", 10)
}

func TestAwaitWaitsForAMaker(t *testing.T) {
	store := open(t, 0)
	inputs, key := inputsOf(t, "app")
	if _, err := store.Await(t.Context(), key, time.Minute); !errors.Is(err, ErrNotFound) {
		t.Fatalf("nobody makes it, and yet: %v", err)
	}
	making, err := store.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Await(t.Context(), key, 20*time.Millisecond); !errors.Is(err, ErrBusy) {
		t.Fatalf("a slow maker: %v", err)
	}
	type found struct {
		use *Use
		err error
	}
	waited := make(chan found)
	go func() {
		use, err := store.Await(t.Context(), key, time.Minute)
		waited <- found{use, err}
	}()
	if err := making.Commit(inputs); err != nil {
		t.Fatal(err)
	}
	got := <-waited
	if got.err != nil {
		t.Fatal(got.err)
	}
	got.use.Release()
}

func TestAwaitDoesNotWaitForTheDead(t *testing.T) {
	store := open(t, 0)
	_, key := inputsOf(t, "app")
	maker := startChild(t, "make", store.dir, key)
	if err := maker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = maker.Wait() // it was killed
	if _, err := store.Await(t.Context(), key, time.Minute); !errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestCollectionKeepsWhatIsUsed(t *testing.T) {
	store := open(t, 4000)
	keys := make(map[string]string)
	for i, app := range []string{"used", "old", "young"} {
		keys[app] = put(t, store, app, 300)
		at := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(store.path(keys[app]), at, at); err != nil {
			t.Fatal(err)
		}
	}
	startChild(t, "use", store.dir, keys["used"]) // which makes it the youngest...
	old := time.Now().Add(-100 * time.Hour)
	if err := os.Chtimes(store.path(keys["used"]), old, old); err != nil {
		t.Fatal(err)
	}
	bad := put(t, store, "bad", 300)
	if err := inUse(t, store, bad).Quarantine("it did not wake"); err != nil {
		t.Fatal(err)
	}
	info, err := store.List()
	if err != nil || len(info) != 4 {
		t.Fatalf("%d snapshots, %v", len(info), err)
	}
	store.maxBytes = 4*info[0].Bytes + 200 // room for one less than there will be
	keys["new"] = put(t, store, "new", 300)
	for app, want := range map[string]bool{"used": true, "old": false, "young": true, "new": true} {
		_, err := os.Stat(store.path(keys[app]))
		if got := err == nil; got != want {
			t.Errorf("snapshot %s: there %v, want %v", app, got, want)
		}
	}
	if _, err := os.Stat(store.path(bad) + badSuffix); err != nil {
		t.Errorf("the quarantined one is in use, and yet it is gone: %v", err)
	}
}

func TestQuarantineTakesOutOfUse(t *testing.T) {
	store := open(t, 0)
	key := put(t, store, "app", 10)
	use := inUse(t, store, key)
	second := inUse(t, store, key)
	for _, u := range []*Use{use, second} { // two workers notice it
		if err := u.Quarantine("it did not wake"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Lookup(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a quarantined snapshot was found: %v", err)
	}
	use.Release()
	second.Release()
	put(t, store, "app", 10)
	list, err := store.List()
	if err != nil || len(list) != 2 || list[0].Bad != "" || list[1].Bad != "it did not wake" || list[1].Inputs.App != "app" {
		t.Fatalf("got %+v, %v", list, err)
	}
}

func TestRemoveSparesWhatIsInUse(t *testing.T) {
	store := open(t, 0)
	key := put(t, store, "app", 10)
	use := inUse(t, store, key)
	if err := store.Remove(key); !errors.Is(err, ErrBusy) {
		t.Fatalf("in use: %v", err)
	}
	use.Release()
	if err := store.Remove(key); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{key, "", "..", "../x", key + lockSuffix} {
		if err := store.Remove(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestOpenSweepsWhatTheDeadLeft(t *testing.T) {
	store := open(t, 0)
	kept := put(t, store, "kept", 10)
	gone := put(t, store, "gone", 10)
	if err := store.Remove(gone); err != nil {
		t.Fatal(err)
	}
	bad := put(t, store, "bad", 10)
	use := inUse(t, store, bad)
	if err := use.Quarantine("it did not wake"); err != nil {
		t.Fatal(err)
	}
	use.Release()
	long := time.Now().Add(-2 * badAge)
	if err := os.Chtimes(store.path(bad)+badSuffix, long, long); err != nil {
		t.Fatal(err)
	}
	_, dying := inputsOf(t, "dying")
	_, living := inputsOf(t, "living")
	maker := startChild(t, "make", store.dir, dying)
	if err := maker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = maker.Wait() // it was killed
	startChild(t, "make", store.dir, living)
	for range 2 { // the first removes directories, the next their locks
		if _, err := Open(store.dir, 0); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(store.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	want := []string{kept, kept + lockSuffix, living + lockSuffix, living + partSuffix}
	slices.Sort(want)
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("left in the store: %s", diff)
	}
}

// TestSweptLocksStillExclude: while locks are swept, no two processes ever make one snapshot at once.
func TestSweptLocksStillExclude(t *testing.T) {
	store := open(t, 0)
	_, key := inputsOf(t, "app")
	var makers, most atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 300 {
				making, err := store.Make(key)
				if err != nil {
					continue
				}
				if n := makers.Add(1); n > 1 {
					most.Store(n)
				}
				makers.Add(-1)
				making.Abort()
				_ = store.sweep() // a directory that goes while it is looked at is the next one's
			}
		})
	}
	all.Wait()
	if most.Load() > 1 {
		t.Errorf("%d made it at once", most.Load())
	}
}

func TestFullDiskLeavesAStoreThatWorks(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	store, err := Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, key := inputsOf(t, "large")
	making, err := store.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(making.Dir, "pages.img"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	inputs, _ := inputsOf(t, "large")
	if err := making.Commit(inputs); err == nil {
		t.Error("a snapshot was committed to a full disk")
	}
	put(t, store, "small", 1000)
}
