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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/sandbox"
)

// node is a directory with all that a node's workers share.
type node struct {
	dir   string
	store *Store
}

func newNode(t *testing.T) node {
	t.Helper()
	n := node{dir: t.TempDir()}
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(n.dir, "shared", "null-netns"), unix.MNT_DETACH) }) // a node that started nothing has none
	for _, dir := range []string{"proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(n.dir, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(n.dir, "rootfs", "guest"), "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	var err error
	if n.store, err = Open(filepath.Join(n.dir, "store"), 0); err != nil {
		t.Fatal(err)
	}
	return n
}

// worker is a guest in its sandbox.
type worker struct {
	*sandbox.Sandbox
	out *bufio.Reader
}

// create makes the sandbox of a worker, as a supervisor does.
func create(dir, id string) (*worker, error) {
	runsc := os.Getenv("FRESHET_RUNSC")
	if runsc == "" {
		var err error
		if runsc, err = exec.LookPath("runsc"); err != nil {
			return nil, errors.New("runsc is needed: put the pinned one on PATH or into FRESHET_RUNSC (make tools prints it)")
		}
	}
	s, err := sandbox.Create(sandbox.Config{
		ID: id, Runsc: runsc, StateDir: filepath.Join(dir, "state-"+id), SharedDir: filepath.Join(dir, "shared"),
		Rootfs: filepath.Join(dir, "rootfs"), Args: []string{"/guest"},
	}, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	return &worker{s, bufio.NewReader(s.Stdout)}, nil
}

func (w *worker) say(line string) (string, error) {
	if _, err := fmt.Fprintln(w.Stdin, line); err != nil {
		return "", err
	}
	if err := w.Stdout.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	answer, err := w.out.ReadString('\n')
	return strings.TrimSpace(answer), err
}

func (n node) cold(t *testing.T, id, first string) *worker {
	t.Helper()
	w, err := create(n.dir, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Destroy(); err != nil {
			t.Error(err)
		}
	})
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.say(first); err != nil {
		t.Fatal(err)
	}
	return w
}

// freeze stores a guest with so many MiB of random bytes, and returns its key and what it says of its memory.
func (n node) freeze(t *testing.T, size int) (key, sum string) {
	t.Helper()
	w := n.cold(t, "original", "fill "+strconv.Itoa(size))
	inputs, key := inputsOf(t, "app")
	making, err := n.store.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Checkpoint(making.Dir); err != nil {
		t.Fatal(err)
	}
	if err := making.Commit(inputs); err != nil {
		t.Fatal(err)
	}
	if sum, err = w.say("sum"); err != nil {
		t.Fatal(err)
	}
	if err := w.Destroy(); err != nil {
		t.Fatal(err)
	}
	return key, sum
}

// thawed is what a supervisor does with a snapshot. The worker is there also after an error, to be destroyed.
func thawed(ctx context.Context, dir, id string, store *Store, key string) (*worker, error) {
	use, err := store.Lookup(ctx, key)
	if err != nil {
		return nil, err
	}
	defer use.Release()
	check := use.Verify(ctx)
	w, err := create(dir, id)
	if err != nil {
		return nil, err
	}
	if err := w.Restore(use.Dir); err != nil {
		return w, err
	}
	return w, check.Wait()
}

// beWorker is a worker's process: it thaws, says what the guest says of itself and of its memory, and waits for the end.
func beWorker(dir, key, id string) error {
	store, err := Open(filepath.Join(dir, "store"), 0)
	if err != nil {
		return err
	}
	w, err := thawed(context.Background(), dir, id, store, key)
	if w != nil {
		defer func() { err = errors.Join(err, w.Destroy()) }()
	}
	if err != nil {
		return err
	}
	self, err := w.say("self")
	if err != nil {
		return err
	}
	sum, err := w.say("sum")
	if err != nil {
		return err
	}
	fmt.Printf("pids=%d,%d sum=%s %s\n", w.PIDs()[0], w.PIDs()[1], sum, self)
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the test closes it
	return nil
}

// TestManyThawAtOnce: all of a burst of workers become ready, each with the memory that was frozen, and with what may not be
// the same in two of them different.
func TestManyThawAtOnce(t *testing.T) {
	count := 20
	if os.Getenv("LONG") != "" {
		count = 50
	}
	n := newNode(t)
	key, sum := n.freeze(t, 8)
	began := time.Now()
	outs := make([]*bufio.Reader, count)
	var closes, waits []func() error
	t.Cleanup(func() {
		for _, end := range append(closes, waits...) { // all are told before one is waited for
			if err := end(); err != nil {
				t.Errorf("end worker: %v", err)
			}
		}
	})
	for i := range outs {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"=thaw "+n.dir+" "+key+" copy"+strconv.Itoa(i))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		outs[i] = bufio.NewReader(out)
		closes, waits = append(closes, in.Close), append(waits, cmd.Wait)
	}
	seen := make(map[string]bool)
	var memory int64
	var ready []time.Duration
	for i, out := range outs {
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("worker %d did not become ready: %v", i, err)
		}
		facts := make(map[string]string)
		for word := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(word, "=")
			facts[name] = value
		}
		if facts["sum"] != sum {
			t.Errorf("worker %d has other memory than was frozen: %s, want %s", i, facts["sum"], sum)
		}
		for _, name := range []string{"random", "uuid"} {
			if facts[name] == "" || seen[facts[name]] {
				t.Errorf("worker %d: its %s %q is that of another", i, name, facts[name])
			}
			seen[facts[name]] = true
		}
		nanos, err := strconv.ParseInt(facts["time"], 10, 64)
		at := time.Unix(0, nanos)
		ready = append(ready, at.Sub(began).Round(time.Millisecond))
		if err != nil || at.Before(began) || at.After(time.Now()) {
			t.Errorf("worker %d: its time is %s, %v", i, at, err)
		}
		for pid := range strings.SplitSeq(facts["pids"], ",") {
			memory += proportional(t, pid)
		}
	}
	slices.Sort(ready)
	t.Logf("%d workers ready, the first after %s, half after %s, all after %s, with %d MB a sandbox",
		count, ready[0], ready[count/2], ready[count-1], memory/int64(count)>>20)
}

// proportional is a process's memory in bytes, with its share of what others have too (Pss of proc_pid_smaps(5)).
func proportional(t *testing.T, pid string) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, "Pss:"); found {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("process %s has no Pss", pid)
	return 0
}

// TestDamagedPagesWakeNobody: gVisor thaws them without a word; the check does not.
func TestDamagedPagesWakeNobody(t *testing.T) {
	n := newNode(t)
	key, _ := n.freeze(t, 16)
	pages := filepath.Join(n.store.path(key), sandbox.PagesFile)
	info, err := os.Stat(pages)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, pages, info.Size()/2, 1)
	w, err := thawed(t.Context(), n.dir, "copy", n.store, key)
	if w == nil {
		t.Fatalf("it was not even created: %v", err)
	}
	if err := w.Destroy(); err != nil {
		t.Error(err)
	}
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), sandbox.PagesFile) {
		t.Fatalf("got %v", err)
	}
	cold := n.cold(t, "cold", "fill 1")
	if answer, err := cold.say("hello"); err != nil || answer != "hello" {
		t.Errorf("the cold start answered %q, %v", answer, err)
	}
}

// TestFullDiskWhileFreezing: the guest goes on, and the store works.
func TestFullDiskWhileFreezing(t *testing.T) {
	n := newNode(t)
	if err := unix.Mount("tmpfs", n.store.dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(n.store.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := n.cold(t, "original", "fill 32")
	sum, err := w.say("sum")
	if err != nil {
		t.Fatal(err)
	}
	_, key := inputsOf(t, "app")
	making, err := n.store.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Checkpoint(making.Dir); err == nil {
		t.Fatal("32 MiB were frozen onto a disk of 8 MiB")
	}
	making.Abort()
	if after, err := w.say("sum"); err != nil || after != sum {
		t.Errorf("the guest says %q, %v after the freeze failed, want %q", after, err, sum)
	}
	put(t, n.store, "small", 1000)
}

// TestFetchedSnapshotThaws: what one node froze wakes on another.
func TestFetchedSnapshotThaws(t *testing.T) {
	n, b := newNode(t), newBucket(t)
	key, sum := n.freeze(t, 16)
	if _, err := b.remote(t, keyOne).Push(t.Context(), n.store, key); err != nil {
		t.Fatal(err)
	}
	there := open(t, 0)
	use, err := b.remote(t, keyOne).Fetch(t.Context(), there, key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	use.Release()
	w, err := thawed(t.Context(), n.dir, "copy", there, key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Destroy() }() // the test's end
	if got, err := w.say("sum"); err != nil || got != sum {
		t.Errorf("the copy's memory has %q, %v, want %q", got, err, sum)
	}
}
