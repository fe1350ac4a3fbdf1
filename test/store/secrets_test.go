package store

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// seen is what the guest says of its secret.
type seen struct{ Loaded, Now, User, Load string }

const (
	firstPassword  = "correct-horse-battery-1"
	secondPassword = "correct-horse-battery-2"
	thirdPassword  = "correct-horse-battery-3"
)

func digest(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}

// has tells whether a worker has a value, in what it loaded and in its environment.
func (s seen) has(value string) bool { return s.Loaded == digest(value) && s.Now == digest(value) }

// TestSecretsReachWorkersAndNothingElse: a deploy wants its secret, workers have its values, a changed one is never thawed in its old
// value, and no log, job or document shows one.
func TestSecretsReachWorkersAndNothingElse(t *testing.T) {
	out, err := shared.Freshet("deploy", "./secrets")
	if err == nil || !strings.Contains(out, "no secret db in namespace default: make it with `freshet secret create db KEY=VALUE`") {
		t.Fatalf("deployed without its secret: %v: %s", err, out)
	}
	must(t, "secret", "create", "db", "USER=theirs")
	out, err = shared.Freshet("deploy", "./secrets")
	if err == nil || !strings.Contains(out, "the secret has no key PASSWORD") {
		t.Fatalf("deployed without a required key: %v: %s", err, out)
	}
	must(t, "secret", "set", "db", "PASSWORD="+firstPassword)
	must(t, "deploy", "./secrets")
	defer must(t, "delete", "keeper")

	first := call[seen](t, "keeper.secret", "1")
	if !first.has(firstPassword) {
		t.Errorf("the worker has %+v", first)
	}
	if first.User != "mine" {
		t.Errorf("the function's own variable is %q", first.User)
	}
	shared.AwaitIdle(t, "keeper", "secret")
	if thawed := call[seen](t, "keeper.secret", "1"); thawed != first {
		t.Errorf("got %+v, want a thaw of %+v", thawed, first)
	}

	// A worker that runs keeps what it has; the next one has the new value, although there is a frozen one of its code.
	must(t, "secret", "set", "db", "PASSWORD="+secondPassword)
	shared.AwaitIdle(t, "keeper", "secret")
	second := call[seen](t, "keeper.secret", "1")
	if !second.has(secondPassword) || second.Load == first.Load {
		t.Errorf("after the change the worker has %+v", second)
	}

	// With --restart, workers that run are replaced.
	out = must(t, "secret", "set", "db", "PASSWORD="+thirdPassword, "--restart")
	if !strings.Contains(out, "The workers of keeper.secret are being replaced.") {
		t.Errorf("set --restart says %s", out)
	}
	until(t, "the new value is there", "keeper.secret", "1", func(s seen) bool { return s.has(thirdPassword) })

	// An old value that is set again is a version of its own.
	must(t, "secret", "set", "db", "PASSWORD="+firstPassword)
	shared.AwaitIdle(t, "keeper", "secret")
	if again := call[seen](t, "keeper.secret", "1"); !again.has(firstPassword) || again.Load == first.Load {
		t.Errorf("after the change back the worker has %+v", again)
	}
	checkNothingShows(t)

	out, err = shared.Freshet("secret", "rm", "db")
	if err == nil || !strings.Contains(out, "secret db is used by keeper.secret") {
		t.Errorf("removed a secret in use: %v: %s", err, out)
	}
	must(t, "secret", "rm", "db", "--force")
}

// checkNothingShows looks for the values wherever somebody could read them. A frozen guest's memory has them, as the running one's does,
// and what a supervisor is told before it starts.
func checkNothingShows(t *testing.T) {
	t.Helper()
	for _, value := range []string{firstPassword, secondPassword, thirdPassword} {
		for _, path := range holders(t, value) {
			memory := strings.HasPrefix(path, "/driver/snapshots/") && strings.HasSuffix(path, ".img")
			told := strings.HasPrefix(path, "/driver/tasks/") || strings.HasPrefix(path, "/driver/ahead/")
			if !memory && !told {
				t.Errorf("%s has a value", path)
			}
		}
		for _, args := range [][]string{{"secret", "ls", "--json"}, {"secret", "versions", "db", "--json"}, {"history", "keeper"}, {"logs", "keeper.secret"}, {"ps"}} {
			if out := must(t, args...); strings.Contains(out, value) {
				t.Errorf("freshet %s shows a value: %s", strings.Join(args, " "), out)
			}
		}
	}
	for _, dir := range []string{"snapshots", "tasks", "ahead"} {
		if info, err := os.Stat(filepath.Join(shared.Dir, "driver", dir)); err != nil || info.Mode()&0o004 != 0 {
			t.Errorf("%s may be read by others: %v %v", dir, info.Mode(), err)
		}
	}
}

// TestSecretsOfNomadsOwnHand: what was written with Nomad's own tool is a secret too.
func TestSecretsOfNomadsOwnHand(t *testing.T) {
	if out, err := nomad(t, "var", "put", "freshet/secrets/byhand", "PIN=1234"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out := must(t, "secret", "ls"); !strings.Contains(out, "byhand") || !strings.Contains(out, "PIN") || strings.Contains(out, "1234") {
		t.Errorf("the list is %s", out)
	}
	if out := must(t, "secret", "set", "byhand", "PUK=5678"); !strings.Contains(out, "at version 2: PIN, PUK") {
		t.Errorf("set says %s", out)
	}
	must(t, "secret", "rm", "byhand")
	eventually.True(t, "it is gone", func() bool { return !strings.Contains(must(t, "secret", "ls"), "byhand") })
}
