package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/test/hostile/world"
)

// identity is what the probe says of itself.
type identity struct {
	Loaded, Random, UUID, Device, Host string
	BootID                             string `json:"boot_id"`
	Wall, Monotonic, Started, Elapsed  int64
	LoadedEnv, Env, LoadedFile, File   string
	asked, answered                    time.Time // by the host
}

// server is a function whose server remembers its start.
func (n *node) server(more string) string {
	return fmt.Sprintf("image = %q\nhandler {\n type = \"http\"\n port = 8080\n ready = \"/healthz\"\n}\nsnapshot { enabled = true }\ntimeout = \"30s\"\n%s", n.image, more)
}

// snapshots is how many there are.
func (n *node) snapshots(t *testing.T) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.config.DataDir, "snapshots", "*", "manifest.json"))
	must(t, err)
	return len(found)
}

func (n *node) who(t *testing.T, job string) identity {
	t.Helper()
	asked := time.Now()
	result := n.call(t, job, "who", "")
	if result.Error != nil {
		t.Fatal(result.Error)
	}
	got := decode[identity](t, string(result.Body))
	got.asked, got.answered = asked, time.Now()
	return got
}

// lives starts one worker after another, each asked once: the first one is frozen, the others are its copies.
func (n *node) lives(t *testing.T, job, config string, count int, change func(*drivers.TaskConfig)) []identity {
	t.Helper()
	var all []identity
	for range count {
		task := n.start(t, job, config, change)
		all = append(all, n.who(t, job))
		task.destroy(t)
	}
	return all
}

func TestCopiesAreNotTheSame(t *testing.T) {
	n := newNode(t)
	all := n.lives(t, "copies.plain", n.server(""), 3, nil)
	if n.snapshots(t) != 1 {
		t.Fatalf("%d snapshots", n.snapshots(t))
	}
	for i, one := range all {
		if one.Loaded != all[0].Loaded || one.Loaded == "" {
			t.Fatalf("worker %d is no copy: %+v", i, one)
		}
		for _, other := range all[:i] {
			for name, pair := range map[string][2]string{
				"getrandom": {one.Random, other.Random}, "/dev/urandom": {one.Device, other.Device}, "uuid": {one.UUID, other.UUID},
			} {
				if pair[0] == pair[1] || len(pair[0]) < 32 {
					t.Errorf("%s of two copies: %q and %q", name, pair[0], pair[1])
				}
			}
		}
		if one.Host != all[0].Host || one.Host == "" {
			t.Errorf("host names %q and %q: copies all have the sandbox's default", one.Host, all[0].Host)
		}
		t.Logf("boot id %s", one.BootID)
	}
}

// TestCopiesKnowTheTime: a copy's wall clock is the host's, however long it was frozen; its monotonic clock never goes back.
func TestCopiesKnowTheTime(t *testing.T) {
	n := newNode(t)
	first := n.lives(t, "copies.time", n.server(""), 1, nil)[0]
	frozen := time.Now()
	eventually.True(t, "some seconds have passed", func() bool { return time.Since(frozen) > 5*time.Second })
	second := n.lives(t, "copies.time", n.server(""), 1, nil)[0]
	for i, one := range []identity{first, second} {
		wall := time.Unix(0, one.Wall)
		if wall.Before(one.asked.Add(-50*time.Millisecond)) || wall.After(one.answered.Add(50*time.Millisecond)) {
			t.Errorf("worker %d says %s between %s and %s", i, wall, one.asked, one.answered)
		}
	}
	if second.Started != first.Started {
		t.Fatal("the second is no copy")
	}
	passed := time.Duration(second.Wall - first.Wall)
	t.Logf("between two answers %s passed; by the monotonic clock %s, by the program's own %s", passed,
		time.Duration(second.Monotonic-first.Monotonic), time.Duration(second.Elapsed-first.Elapsed))
	if second.Monotonic < first.Monotonic-int64(passed) || second.Elapsed < 0 {
		t.Errorf("the monotonic clock went from %d back to %d", first.Monotonic, second.Monotonic)
	}
}

// TestCopiesHoldNoConnection: what was open when the original was frozen is closed in its copies, or the snapshot is not made.
func TestCopiesHoldNoConnection(t *testing.T) {
	n := newNode(t)
	hold := func(cfg *drivers.TaskConfig) { cfg.Env["HOLD"] = world.Website + ":80" }
	for i := range 2 {
		task := n.start(t, "copies.held", n.server("network { egress = true }"), hold)
		result := n.call(t, "copies.held", "held", "")
		if result.Error != nil {
			t.Fatal(result.Error)
		}
		t.Logf("worker %d, with %d snapshots: %s", i, n.snapshots(t), result.Body)
		if i > 0 && n.snapshots(t) > 0 && strings.Contains(string(result.Body), "alive") {
			t.Errorf("a copy speaks on the original's connection: %s", result.Body)
		}
		task.destroy(t)
	}
}

// TestRotatedSecretsAreGone: as variables of the environment and as files, which is how Nomad's templates bring secrets.
func TestRotatedSecretsAreGone(t *testing.T) {
	n := newNode(t)
	life := func(value string) identity {
		t.Helper()
		task := n.startWith(t, "copies.secret", n.server(""), func(cfg *drivers.TaskConfig) { cfg.Env["SECRET"] = "env " + value }, func(cfg *drivers.TaskConfig) {
			must(t, os.WriteFile(filepath.Join(cfg.TaskDir().SecretsDir, "token"), []byte("file "+value), 0o644))
		})
		defer task.destroy(t)
		return n.who(t, "copies.secret")
	}
	check := func(got identity, value string) {
		t.Helper()
		if got.LoadedEnv != "env "+value || got.Env != "env "+value || got.LoadedFile != "file "+value || got.File != "file "+value {
			t.Errorf("with the secret %q the worker has %q, %q, %q and %q", value, got.LoadedEnv, got.Env, got.LoadedFile, got.File)
		}
	}
	first, copied := life("old"), life("old")
	check(first, "old")
	check(copied, "old")
	if first.Loaded != copied.Loaded {
		t.Error("with the same secret the second worker is no copy")
	}
	rotated := life("new")
	check(rotated, "new")
	if rotated.Loaded == first.Loaded {
		t.Error("a copy of the old secret's worker was given the new one")
	}
}
