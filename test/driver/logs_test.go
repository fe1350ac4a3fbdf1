package driver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// TestLogs: the same files, whoever writes them, while the task runs and after its end.
func TestLogs(t *testing.T) {
	for name, logmon := range map[string]bool{"own": false, "collector": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, nil)
			task := n.newTask(t, logmon, n.shell("echo first; echo wrong >&2; while ! test -e /local/go; do sleep 0.1; done; printf 'no newline'"), nil)
			task.start(t)
			task.says(t, "first\n")
			task.touch(t, "go")
			if end := task.wait(t); !end.Successful() {
				t.Errorf("%+v", end)
			}
			task.says(t, "first\nno newline")
			eventually.True(t, "standard error is written", func() bool { return task.read(t, "box.stderr.0") == "wrong\n" })
		})
	}
}

// TestLogRotation: under Nomad's names, and no more than its defaults.
func TestLogRotation(t *testing.T) {
	n := newNode(t, nil)
	const lines = 4_500_000 // of 8 bytes
	task, end := n.run(t, n.shell(fmt.Sprintf("seq -w %d", lines)), nil)
	if !end.Successful() {
		t.Fatalf("%+v", end)
	}
	files, err := filepath.Glob(filepath.Join(task.TaskDir().LogDir, "box.stdout.*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	if len(files) != 4 {
		t.Fatalf("%d MB are in %d files: %q", lines*8>>20, len(files), files)
	}
	next := 1
	for i, file := range files {
		if !strings.HasSuffix(file, fmt.Sprintf(".%d", i)) {
			t.Errorf("the file number %d is called %s", i, file)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 11<<20 {
			t.Errorf("%s has %d bytes", file, len(data))
		}
	}
	var all strings.Builder
	for i := range files {
		all.WriteString(task.read(t, fmt.Sprintf("box.stdout.%d", i)))
	}
	for _, line := range strings.Split(strings.TrimSpace(all.String()), "\n") {
		if line != fmt.Sprintf("%07d", next) {
			t.Fatalf("line %d reads %q", next, line)
		}
		next++
	}
	if next != lines+1 {
		t.Errorf("%d lines are there of %d", next-1, lines)
	}
}
