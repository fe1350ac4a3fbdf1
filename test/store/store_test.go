// Package store tests secrets and volumes through the whole system: real NATS, Nomad and gVisor, each component its own process.
package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/test/clustertest"
)

// shared is the cluster of all tests: a start takes seconds.
var shared *clustertest.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-store-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = &clustertest.Cluster{Bin: os.Getenv("FRESHET_BIN"), Dir: dir}
	code := 1
	if err := shared.Up(); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err, "FRESHET_BIN must name the folder of freshet's programs: use `make test`")
	}
	if code != 0 {
		shared.TellLogs(os.Stderr)
	}
	if err := shared.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// must runs the command line.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := shared.Freshet(args...)
	if err != nil {
		t.Fatalf("freshet %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// nomad runs Nomad's own command line against the cluster.
func nomad(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Getenv("FRESHET_NOMAD"), args...)
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+shared.State.Nomad())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// call calls a function.
func call[Out any](t *testing.T, function, input string) Out {
	t.Helper()
	var out Out
	text := must(t, "call", function, input)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s says %s: %v", function, text, err)
	}
	return out
}

// holders are the files of the cluster that have a text.
func holders(t *testing.T, text string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(shared.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // gone meanwhile
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(text)) {
			found = append(found, strings.TrimPrefix(path, shared.Dir))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// until calls a function until its answer is as wanted.
func until[Out any](t *testing.T, what, function, input string, wanted func(Out) bool) Out {
	t.Helper()
	var last Out
	eventually.True(t, what, func() bool {
		last = call[Out](t, function, input)
		return wanted(last)
	})
	return last
}
