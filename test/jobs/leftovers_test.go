package jobs

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// clean ends the job at the test's end, has Nomad collect it, and waits until the node is as it was before.
func clean(t *testing.T, job string) {
	t.Helper()
	openNetworks.Do(func() { runOnce(t) })
	before := belongings(t)
	t.Cleanup(func() {
		if out, err := tryNomad("job", "stop", "-purge", "-detach", job); err != nil && !strings.Contains(out, "No job(s)") {
			t.Errorf("stop job %s: %v: %s", job, err, out)
		}
		left := ""
		defer func() { t.Log(left) }()
		eventually.True(t, "job "+job+" leaves nothing", func() bool {
			if out, err := tryNomad("system", "gc"); err != nil {
				t.Fatalf("nomad system gc: %v: %s", err, out)
			}
			left = cmp.Diff(before, belongings(t))
			return left == ""
		})
	})
}

// openNetworks runs a first job: what the driver makes for all tasks, such as its networks made ahead, is there from then on.
var openNetworks sync.Once

func runOnce(t *testing.T) {
	t.Helper()
	nomad(t, "job", "run", "-detach", "shell.nomad.hcl")
	allocation(t, "shell", "running", running)
	nomad(t, "job", "stop", "-purge", "-detach", "shell")
	eventually.True(t, "the first job is gone", func() bool {
		nomad(t, "system", "gc")
		now := belongings(t)
		return now["files in nomad/alloc"] == 0 && now["files in driver/tasks"] == 0
	})
}

// belongings counts what tasks have of the node, by kind.
func belongings(t *testing.T) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	count := func(what string, names ...string) {
		for _, name := range names {
			counts[what+" "+kindOf(name)]++
		}
	}
	for _, parent := range []string{driverGroup, nomadGroup} {
		for _, dir := range groupDirs(parent) {
			_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					counts["control group "+parent]++
				}
				return nil // one that went meanwhile is none
			})
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		place := strings.Fields(line)[4]
		if rest, ours := strings.CutPrefix(place, node.dir); ours && !strings.HasPrefix(rest, "/driver/images/mounts/") {
			count("mount", rest) // images' roots stay until their images are collected
		} else if strings.HasPrefix(place, "/run/netns/") {
			counts["mount of a network namespace"]++
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Name == "nomad" {
			continue // the bridge, which Nomad makes for the first group and keeps
		}
		counts["interface "+strings.TrimRight(link.Name, "0123456789abcdef")]++
	}
	for _, dir := range []string{"driver/tasks", "driver/ahead", "driver/images/holds", "driver/network", "driver/shared", "nomad/alloc"} {
		entries, err := os.ReadDir(node.path(dir))
		if err != nil {
			continue // nothing needed it yet
		}
		counts["files in "+dir] = len(entries)
	}
	for _, pid := range processes(t) {
		counts[pid]++
	}
	return counts
}

func kindOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// processes are those of tasks, by their programs.
func processes(t *testing.T) []string {
	t.Helper()
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		line := string(data)
		if strings.Contains(line, node.dir+"/driver/") {
			program, _, _ := strings.Cut(line, "\x00")
			found = append(found, fmt.Sprintf("process %s", filepath.Base(program)))
		}
	}
	sort.Strings(found)
	return found
}
