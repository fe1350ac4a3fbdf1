package clustertest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Mapping is a running `freshet map`.
type Mapping struct {
	// Seen counts the answers of each item.
	Seen map[int]int

	items  int
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	errors []string
}

// Map starts a map whose items sleep for some milliseconds each, and say their index.
func (c *Cluster) Map(tb testing.TB, function string, items int) *Mapping {
	tb.Helper()
	input := filepath.Join(tb.TempDir(), "input.ndjson")
	var text strings.Builder
	for i := range items {
		fmt.Fprintf(&text, "{\"do\":\"sleep\",\"with\":%q}\n", item(i))
	}
	if err := os.WriteFile(input, []byte(text.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	m := &Mapping{Seen: make(map[int]int), items: items}
	m.cmd = exec.Command(filepath.Join(c.Bin, "freshet"), "map", function, "-q", "-c", "48", "-i", input)
	m.cmd.Env = append(os.Environ(), "FRESHET_STATE="+c.Dir)
	m.cmd.Stderr = os.Stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	m.lines = bufio.NewScanner(out)
	return m
}

// item is what an item asks for and is answered: a time to sleep, whose fraction is its index.
func item(index int) string { return fmt.Sprintf("%d.%06dms", 5+index%10, index) }

// next reads a result; false at the end.
func (m *Mapping) next(tb testing.TB) bool {
	tb.Helper()
	if !m.lines.Scan() {
		return false
	}
	var line struct {
		Index  int
		Output struct{ Said string }
		Error  json.RawMessage
	}
	if err := json.Unmarshal(m.lines.Bytes(), &line); err != nil {
		tb.Fatal(err)
	}
	m.Seen[line.Index]++
	if line.Error != nil {
		m.errors = append(m.errors, m.lines.Text())
	} else if line.Output.Said != item(line.Index) {
		m.errors = append(m.errors, "another item's answer: "+m.lines.Text())
	}
	return true
}

// Until reads results up to a number of them.
func (m *Mapping) Until(tb testing.TB, count int) {
	tb.Helper()
	for len(m.Seen) < count && m.next(tb) {
	}
}

// Check reads the rest: each item must have one answer, its own.
func (m *Mapping) Check(tb testing.TB) {
	tb.Helper()
	for m.next(tb) {
	}
	if err := m.cmd.Wait(); err != nil {
		tb.Errorf("map: %v", err)
	}
	for i := range m.items {
		if m.Seen[i] != 1 {
			tb.Errorf("item %d was answered %d times", i, m.Seen[i])
		}
	}
	if len(m.errors) > 0 {
		tb.Errorf("%d errors, such as %s", len(m.errors), m.errors[0])
	}
}
