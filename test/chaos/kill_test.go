//go:build long

package chaos

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// answer is how a call ended.
type answer struct {
	told
	err error
}

// call makes a call and brings its answer.
func call(t *testing.T, function, do, with string) <-chan answer {
	t.Helper()
	answers := make(chan answer, 1)
	go func() {
		said, err := tell(t, function, do, with)
		answers <- answer{said, err}
	}()
	return answers
}

// TestKilledStandby: nobody misses it, and there is another one after the next start.
func TestKilledStandby(t *testing.T) {
	before := begin(t, "one", "online")
	for _, function := range []string{"one", "online"} {
		endStandbys(t, function)
	}
	await(t, before, "one", "online")
}

// TestSupervisorKilledInEachPhase: the call that its worker was started for is answered by another, and nothing is left.
func TestSupervisorKilledInEachPhase(t *testing.T) {
	before := begin(t, "one", "online")
	for _, phase := range []struct {
		name string
		// cold has the worker start without a snapshot, and so make one.
		cold    bool
		reached func(t *testing.T, dir string) bool
	}{
		{"spawned", false, func(*testing.T, string) bool { return true }},
		{"with its sandbox", false, func(t *testing.T, dir string) bool { return len(parts(t, dir, "runsc-sandbox")) > 0 }},
		{"cold, with its sandbox", true, func(t *testing.T, dir string) bool { return len(parts(t, dir, "runsc-sandbox")) > 0 }},
		{"freezing", true, func(t *testing.T, dir string) bool {
			made, err := filepath.Glob(filepath.Join(shared.State.DriverDir(), "snapshots", "*.part"))
			if err != nil {
				t.Fatal(err)
			}
			return len(made) > 0 || supervisor(dir) == 0 // it was too quick for us
		}},
		{"running its call", false, func(t *testing.T, _ string) bool { return busy(t, "online") }},
		{"draining", false, func(t *testing.T, dir string) bool {
			if !busy(t, "online") {
				return false
			}
			return syscall.Kill(supervisor(dir), syscall.SIGTERM) == nil
		}},
	} {
		t.Run(phase.name, func(t *testing.T) {
			if phase.cold {
				if err := os.RemoveAll(snapshotOf(t, "online")); err != nil {
					t.Fatal(err)
				}
			}
			endStandbys(t, "online")
			answers := call(t, "online", "sleep", "1s")
			killed := 0
			eventually.True(t, "a worker is "+phase.name, func() bool {
				for _, dir := range units(t, "tasks", "online") {
					if killed = supervisor(dir); phase.reached(t, dir) && killed != 0 {
						return true
					}
				}
				return false
			})
			kill(t, killed)
			if got := <-answers; got.err != nil || got.Said != "1s" {
				t.Errorf("the call ended with %+v", got)
			}
			shared.AwaitIdle(t, app, "online")
		})
	}
	await(t, before, "one", "online")
}

// busy tells whether a worker of the function runs a call.
func busy(t *testing.T, function string) bool {
	t.Helper()
	for _, beat := range shared.Workers(t, app, function) {
		if beat.State == "busy" {
			return true
		}
	}
	return false
}

// TestHalfASandboxKilled: a sentry or a gofer that dies alone takes the worker with it, and neither the function nor the node.
func TestHalfASandboxKilled(t *testing.T) {
	before := begin(t, "one", "online")
	for _, part := range []string{"runsc-sandbox", "runsc-gofer"} {
		t.Run(part, func(t *testing.T) {
			answers := call(t, "online", "sleep", "2s")
			eventually.True(t, "a worker runs the call", func() bool { return busy(t, "online") })
			killed := false
			for _, dir := range units(t, "tasks", "online") {
				for _, pid := range parts(t, dir, part) {
					kill(t, pid)
					killed = true
				}
			}
			if !killed {
				t.Fatalf("there is no %s", part)
			}
			began := time.Now()
			got := <-answers // an answer, for another worker ran it, or an error that says what happened
			t.Logf("after %s the call ended with %q, %v", time.Since(began), got.Said, got.err)
			mustSay(t, "online")
			shared.AwaitIdle(t, app, "online")
		})
	}
	await(t, before, "one", "online")
}
