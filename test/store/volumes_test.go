package store

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// order is what the guest is to do with a file, done what came of it.
type order struct {
	Do   string `json:"do"`
	Path string `json:"path"`
	With string `json:"with,omitempty"`
}

type done struct{ Text, Error, Frozen string }

func do(t *testing.T, function, what, path, with string) done {
	t.Helper()
	input, err := json.Marshal(order{what, path, with})
	if err != nil {
		t.Fatal(err)
	}
	return call[done](t, "sharer."+function, string(input))
}

// TestVolumesAreShared: what one sandbox writes another one sees at once, what the gateway stores both do, and a thawed worker sees what
// is there when it looks, not what was when it was frozen.
func TestVolumesAreShared(t *testing.T) {
	out, err := shared.Freshet("deploy", "./volumes")
	if err == nil || !strings.Contains(out, "no volume shared in namespace default: make it with `freshet volume create shared`") {
		t.Fatalf("deployed without its volume: %v: %s", err, out)
	}
	must(t, "volume", "create", "shared")
	defer must(t, "volume", "delete", "shared")
	local := filepath.Join(t.TempDir(), "first")
	if err := os.WriteFile(local, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "volume", "put", "shared", local)
	must(t, "deploy", "./volumes")
	defer must(t, "delete", "sharer")

	if got := do(t, "look", "read", "/shared/first", ""); got != (done{Text: "one", Frozen: "one"}) {
		t.Fatalf("what was put is %+v", got)
	}
	checkCoherence(t)
	if got := do(t, "readonly", "read", "/shared/first", ""); got.Text != "one" {
		t.Errorf("read-only, it has %+v", got)
	}
	for _, what := range []string{"write", "append", "remove"} {
		if got := do(t, "readonly", what, "/shared/first", "x"); !strings.Contains(got.Error, "read-only file system") {
			t.Errorf("read-only, %s says %+v", what, got)
		}
	}
	if got := must(t, "volume", "get", "shared", "second", "-"); got != "fourfive" {
		t.Errorf("the gateway gets %q", got)
	}

	shared.AwaitIdle(t, "sharer", "look")
	must(t, "volume", "rm", "shared", "second")
	if err := os.WriteFile(local, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "volume", "put", "shared", local, "first")
	if got := do(t, "look", "read", "/shared/first", ""); got != (done{Text: "two", Frozen: "one"}) {
		t.Errorf("a thawed worker has %+v", got)
	}
	if got := do(t, "look", "read", "/shared/second", ""); !strings.Contains(got.Error, "no such file") {
		t.Errorf("of what was removed while it was frozen it has %+v", got)
	}
}

// checkCoherence changes files in one sandbox and looks at them in another one right after.
func checkCoherence(t *testing.T) {
	t.Helper()
	for _, step := range []struct{ what, path, with, want string }{
		{"write", "/shared/second", "two", "two"},
		{"write", "/shared/second", "three is longer", "three is longer"},
		{"replace", "/shared/second", "four", "four"},
		{"append", "/shared/second", "five", "fourfive"},
	} {
		if got := do(t, "write", step.what, step.path, step.with); got.Error != "" {
			t.Fatalf("%s: %+v", step.what, got)
		}
		if got := do(t, "look", "read", step.path, ""); got.Text != step.want {
			t.Errorf("after %s %q the other worker reads %+v", step.what, step.with, got)
		}
	}
	const rounds = 10
	for i := range rounds {
		name, text := fmt.Sprintf("/shared/round-%d", i%3), fmt.Sprintf("round %d", i)
		do(t, "write", "write", name, text)
		if got := do(t, "look", "read", name, ""); got.Text != text {
			t.Errorf("round %d: the other worker reads %+v", i, got)
		}
	}
	do(t, "write", "remove", "/shared/round-1", "")
	if got := do(t, "look", "list", "/shared/round-*", ""); got.Text != "/shared/round-0 /shared/round-2" {
		t.Errorf("after a removal the other worker lists %+v", got)
	}

	// What user code leaves behind leads nobody out of the volume, and a large file comes through whole.
	do(t, "write", "link", "/shared/out", "/etc")
	do(t, "write", "link", "/shared/up", "../../secrets")
	for _, path := range []string{"out/passwd", "up/x", "../default/shared/first"} {
		if out, err := shared.Freshet("volume", "get", "shared", path, "-"); err == nil || strings.Contains(out, "root:") {
			t.Errorf("get %s: %s", path, out)
		}
	}
	large := make([]byte, 48<<20)
	_, _ = rand.Read(large) // never fails
	put := exec.CommandContext(t.Context(), filepath.Join(shared.Bin, "freshet"), "volume", "put", "shared", "-", "deep/large")
	put.Env, put.Stdin = append(os.Environ(), "FRESHET_STATE="+shared.Dir), bytes.NewReader(large)
	if out, err := put.CombinedOutput(); err != nil {
		t.Fatalf("put: %v: %s", err, out)
	}
	sum := sha256.Sum256(large)
	if got := do(t, "look", "sum", "/shared/deep/large", ""); got.Text != hex.EncodeToString(sum[:]) {
		t.Errorf("the large file is another one: %+v", got)
	}
	to := filepath.Join(t.TempDir(), "all")
	must(t, "volume", "get", "shared", "/", to)
	fetched, err := os.ReadFile(filepath.Join(to, "deep", "large"))
	if err != nil || !bytes.Equal(fetched, large) {
		t.Errorf("the folder is not what was stored: %v", err)
	}
	if target, err := os.Readlink(filepath.Join(to, "out")); err != nil || target != "/etc" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
}
