package driver

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// fakeNode is what orphans sees of a node: tasks that run or have ended, those of them that Nomad knows, and those being drained.
type fakeNode struct {
	tasks   map[string]bool // and whether they run
	claimed map[string]bool
	drained map[string]int
	removed []string
}

func (n *fakeNode) orphans(grace time.Duration) *orphans {
	return &orphans{
		grace: grace, log: zerolog.Nop(),
		list:    func() []string { return slices.Sorted(maps.Keys(n.tasks)) },
		claimed: func(dir string) bool { return n.claimed[dir] },
		running: func(dir string) bool { return n.tasks[dir] },
		drain:   func(dir string) (time.Duration, error) { n.drained[dir]++; return time.Minute, nil },
		remove: func(_ context.Context, dir string) error {
			delete(n.tasks, dir)
			n.removed = append(n.removed, dir)
			return nil
		},
	}
}

func newFakeNode() *fakeNode {
	return &fakeNode{tasks: make(map[string]bool), claimed: make(map[string]bool), drained: make(map[string]int)}
}

// TestOrphansAreDrainedThenRemoved follows four tasks: claimed, claimed late, ended, and deaf to its drain.
func TestOrphansAreDrainedThenRemoved(t *testing.T) {
	node := newFakeNode()
	o := node.orphans(5 * time.Minute)
	start := time.Now()
	node.tasks = map[string]bool{"claimed": true, "late": true, "ended": false, "deaf": true}
	node.claimed["claimed"] = true
	look := func(after time.Duration) {
		t.Helper()
		if err := o.look(t.Context(), start.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	look(0)
	node.claimed["late"] = true
	look(4 * time.Minute)
	if len(node.removed)+len(node.drained) > 0 {
		t.Fatalf("within the grace, %v was removed and %v drained", node.removed, node.drained)
	}
	look(5 * time.Minute)
	if !slices.Equal(node.removed, []string{"ended"}) || node.drained["deaf"] != 1 {
		t.Fatalf("after the grace, %v was removed and %v drained", node.removed, node.drained)
	}
	look(5*time.Minute + 59*time.Second)
	if len(node.removed) != 1 {
		t.Fatalf("it was not left the time to drain: %v", node.removed)
	}
	look(6 * time.Minute)
	if !slices.Equal(node.removed, []string{"ended", "deaf"}) || node.drained["deaf"] != 1 || len(node.drained) != 1 {
		t.Errorf("at the end, %v was removed and %v drained", node.removed, node.drained)
	}
}

// TestNoClaimedTaskIsEverTouched: whatever comes and goes, what Nomad knows is left alone, and nothing goes before its grace.
func TestNoClaimedTaskIsEverTouched(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		node := newFakeNode()
		o := node.orphans(10 * time.Second)
		now := time.Now()
		unclaimedSince := make(map[string]time.Time)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "seconds")) * time.Second)
			dir := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "task")
			node.tasks[dir] = rapid.Bool().Draw(t, "runs")
			node.claimed[dir] = rapid.Bool().Draw(t, "claimed")
			removed := len(node.removed)
			drained := maps.Clone(node.drained)
			if err := o.look(t.Context(), now); err != nil {
				t.Fatal(err)
			}
			for name := range node.tasks {
				if node.claimed[name] {
					delete(unclaimedSince, name)
				} else if _, ok := unclaimedSince[name]; !ok {
					unclaimedSince[name] = now
				}
			}
			touched := slices.Clone(node.removed[removed:])
			for name, times := range node.drained {
				if times != drained[name] {
					touched = append(touched, name)
				}
			}
			for _, name := range touched {
				since, ok := unclaimedSince[name]
				if node.claimed[name] || !ok || now.Sub(since) < 10*time.Second {
					t.Fatalf("%s was touched at %s; it was unclaimed since %s", name, now, since)
				}
			}
			for _, name := range node.removed[removed:] {
				delete(unclaimedSince, name)
			}
		}
	})
}

// TestPluginEndsWhatNobodyAskedFor: a real task whose agent lost its state goes, with its directory and its control groups.
func TestPluginEndsWhatNobodyAskedFor(t *testing.T) {
	s, program := newTestStarter(t, func(c *Config) { c.OrphanGrace = "300ms" })
	started, err := begin(t, s, taskOf(t, goHandler(program)))
	if err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the task's directory is gone", func() bool {
		_, err := os.Stat(started.state.StateDir)
		return errors.Is(err, os.ErrNotExist)
	})
	if err := started.process.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	started.reap()
	groups, err := s.groups.List()
	if err != nil || slices.Contains(groups, guestID(filepath.Base(started.state.StateDir))) {
		t.Errorf("its control groups are left: %v, %v", groups, err)
	}
}

// TestUnitGoesWithItsMounts: a supervisor that is killed while it makes its sandbox leaves the root's stand-in mounted.
func TestUnitGoesWithItsMounts(t *testing.T) {
	s, _ := newTestStarter(t, nil)
	dir := filepath.Join(s.config.DataDir, tasksDir, "killed")
	place := filepath.Join(dir, handoff.SandboxDir, "root")
	if err := os.MkdirAll(place, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", place, "tmpfs", unix.MS_RDONLY, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(place, unix.MNT_DETACH) }) // it is gone where all went well
	for range 2 {
		if err := s.giveBack(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

// TestOnePluginADirectory: a plugin that its agent left behind is ended by the next one.
func TestOnePluginADirectory(t *testing.T) {
	dir := t.TempDir()
	cmd := sleeper(t)
	if err := handoff.WritePID(dir, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := succeed(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Errorf("it ended with %v", err)
	}
	for range 2 { // nobody is before it any more, and it does not end itself
		if err := succeed(t.Context(), dir); err != nil {
			t.Error(err)
		}
	}
	process, err := handoff.FindProcess(dir)
	if err != nil || process.PID != os.Getpid() {
		t.Fatalf("got %v, %v; want this process", process, err)
	}
	process.Close()
}
