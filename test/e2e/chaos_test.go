package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// items is the size of the maps that components are killed in: long enough to be in the middle.
const items = 10_000

// TestNothingIsLostWhenAComponentDies kills each component in the middle of a map: every item is answered, once.
func TestNothingIsLostWhenAComponentDies(t *testing.T) {
	for name, victim := range map[string]func(*testing.T) int{
		"supervisor": func(t *testing.T) int { return process(t, "freshet-worker", shared.dir) },
		"plugin":     func(t *testing.T) int { return process(t, filepath.Join(shared.dir, "plugins", "freshet-driver"), "") },
		"nomad":      func(t *testing.T) int { return process(t, "nomad", "agent -config "+shared.dir) },
		"gateway":    func(t *testing.T) int { return process(t, "freshet", "gateway --listen") },
		"autoscaler": func(t *testing.T) int { return process(t, "freshet", "autoscaler --listen") },
		"nats":       func(t *testing.T) int { return process(t, "freshet", "nats --state "+shared.dir) },
	} {
		t.Run(name, func(t *testing.T) {
			run := startMap(t)
			run.until(t, items/5)
			if err := syscall.Kill(victim(t), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			run.check(t)
			eventually.True(t, "the queue is empty", func() bool { return look(t, "misbehave", "slow").Pending == 0 })
		})
	}
}

// mapping is a running `freshet map`.
type mapping struct {
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	seen   map[int]int
	errors []string
}

func startMap(t *testing.T) *mapping {
	t.Helper()
	input := filepath.Join(t.TempDir(), "input.ndjson")
	var text strings.Builder
	for i := range items {
		fmt.Fprintf(&text, "{\"do\":\"sleep\",\"with\":\"%dms\"}\n", 5+i%10)
	}
	if err := os.WriteFile(input, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &mapping{seen: make(map[int]int)}
	m.cmd = exec.Command(filepath.Join(shared.bin, "freshet"), "map", "misbehave.slow", "-q", "-c", "48", "-i", input)
	m.cmd.Env = append(os.Environ(), "FRESHET_STATE="+shared.dir)
	m.cmd.Stderr = os.Stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.lines = bufio.NewScanner(out)
	return m
}

// next reads a result; false at the end.
func (m *mapping) next(t *testing.T) bool {
	t.Helper()
	if !m.lines.Scan() {
		return false
	}
	var line struct {
		Index int
		Error json.RawMessage
	}
	if err := json.Unmarshal(m.lines.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	m.seen[line.Index]++
	if line.Error != nil {
		m.errors = append(m.errors, m.lines.Text())
	}
	return true
}

// until reads results up to a number of them.
func (m *mapping) until(t *testing.T, count int) {
	t.Helper()
	for len(m.seen) < count && m.next(t) {
	}
}

// check reads the rest and counts.
func (m *mapping) check(t *testing.T) {
	t.Helper()
	for m.next(t) {
	}
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("map: %v", err)
	}
	for i := range items {
		if m.seen[i] != 1 {
			t.Errorf("item %d was answered %d times", i, m.seen[i])
		}
	}
	if len(m.errors) > 0 {
		t.Errorf("%d errors, such as %s", len(m.errors), m.errors[0])
	}
}

// TestSecondStartFindsEverything stops the cluster and starts it again.
func TestSecondStartFindsEverything(t *testing.T) {
	before, err := tell(t, "one", "say", "before")
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.stop(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(shared.dir, "driver", "tasks", "*", "pid.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range left {
		if process := exec.Command("pgrep", "-f", filepath.Dir(file)); process.Run() == nil {
			log, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "worker.log"))
			t.Errorf("a process of %s outlived the cluster; its log: %s\nup says: %s", filepath.Dir(file), log, shared.output)
		}
	}
	if err := shared.startUp(); err != nil {
		t.Fatal(err)
	}
	after, err := tell(t, "one", "say", "after")
	if err != nil || after.Loaded != before.Loaded {
		t.Errorf("after the second start: %+v, %v; want a thaw of %+v", after, err, before)
	}
}
