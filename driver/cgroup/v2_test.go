package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// fixture is a directory that looks like v2 with all controllers: the files are what Linux 6.12 shows.
func fixture(t *testing.T) (*v2, string) {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "freshet", "task")
	if err := os.CopyFS(dir, os.DirFS("testdata/v2")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{root, filepath.Join(root, "freshet")} {
		for _, file := range []string{"cgroup.controllers", "cgroup.subtree_control"} {
			if err := os.WriteFile(filepath.Join(d, file), []byte("cpuset cpu io memory pids\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A file keeps what is written, not what the kernel would make of it.
	return &v2{root: root, controllers: []string{"cpuset", "cpu", "memory", "pids"}}, dir
}

func contents(t *testing.T, dir string, files ...string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		found[file] = strings.TrimSpace(string(data))
	}
	return found
}

func TestV2Stats(t *testing.T) {
	v, dir := fixture(t)
	group, err := v.load("/freshet/task")
	if err != nil {
		t.Fatal(err)
	}
	got, err := group.stats()
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		CPU: 6001 * time.Millisecond, CPUUser: 4 * time.Second, CPUSystem: 2001 * time.Millisecond,
		ThrottledPeriods: 7, Throttled: 350 * time.Millisecond,
		RSS: 12345344 + 104857600, Cache: 125829120 - 104857600, Swap: 4096, MappedFile: 100663296,
		Usage: 142606336, MaxUsage: 157286400, Kernel: 3145728, OOMKills: 3, PIDs: 42,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, file := range []string{"memory.peak", "memory.swap.current"} { // as on older kernels
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	want.MaxUsage, want.Swap = 0, 0
	if got, err := group.stats(); err != nil || got != want {
		t.Errorf("without the newer files: %v\n%s", err, cmp.Diff(want, got))
	}
	if err := os.Remove(filepath.Join(dir, "memory.current")); err != nil {
		t.Fatal(err)
	}
	if _, err := group.stats(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a group that goes while it is measured: %v", err)
	}
}

func TestV2Limits(t *testing.T) {
	v, dir := fixture(t)
	group, err := v.load("/freshet/task")
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"memory.max", "memory.low", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max"}
	if err := group.update(Limits{Memory: 1 << 30, Reserved: 1 << 29, CPUShares: 2048, CPUs: 1.5, PIDs: 99}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"memory.max": "1073741824", "memory.low": "536870912", "memory.swap.max": "0",
		"cpu.weight": "174", "cpu.max": "150000 100000", "pids.max": "99",
	}
	if diff := cmp.Diff(want, contents(t, dir, files...)); diff != "" {
		t.Error(diff)
	}
	if err := group.update(Limits{}); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{
		// The kernel reads the largest number as "max".
		"memory.max": "9223372036854775807", "memory.low": "0", "memory.swap.max": "9223372036854775807",
		"cpu.weight": "100", "cpu.max": "max 100000", "pids.max": "max",
	}
	if diff := cmp.Diff(want, contents(t, dir, files...)); diff != "" {
		t.Error(diff)
	}
}

func TestV2UseCPUs(t *testing.T) {
	v, dir := fixture(t)
	group, err := v.load("/freshet/task")
	if err != nil {
		t.Fatal(err)
	}
	nomads := t.TempDir()
	if err := os.WriteFile(filepath.Join(nomads, "cpuset.cpus.effective"), []byte("0-2,5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := group.useCPUs(nomads); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dir, "cpuset.cpus")["cpuset.cpus"]; got != "0-2,5" {
		t.Errorf("processors %q", got)
	}
}

func TestV2WaitOOM(t *testing.T) {
	v, dir := fixture(t)
	control, err := v.load("/freshet/task")
	if err != nil {
		t.Fatal(err)
	}
	group := &Group{ID: "task", name: "/freshet/task", roots: v.roots(), control: control}
	if kills, err := group.WaitOOM(t.Context(), 2); err != nil || kills != 3 {
		t.Fatalf("a kill that was counted before: %d, %v", kills, err)
	}
	type answer struct {
		kills uint64
		err   error
	}
	told := make(chan answer, 1)
	go func() {
		kills, err := group.WaitOOM(t.Context(), 3)
		told <- answer{kills, err}
	}()
	// The kernel's files change at once; this one is written in one write, as often as it takes until the watch stands.
	file, err := os.OpenFile(filepath.Join(dir, "memory.events"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.WriteAt([]byte("low 0\nhigh 0\nmax 9\noom 4\noom_kill 4\noom_group_kill 0\n"), 0); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got.err != nil || got.kills != 4 {
		t.Errorf("told of %d kills, %v; want 4", got.kills, got.err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := group.WaitOOM(ctx, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// Not a fuzz target: gVisor, which this package's tests link, does not build with the fuzzer's instrumentation.
func TestParseKeyed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(rapid.StringMatching(`[a-z_.]{1,20}`), rapid.Uint64()).Draw(t, "values")
		noise := rapid.SliceOf(rapid.SampledFrom([]string{"", " ", "some avg10=0.00 avg60=0.00", "high max", "x -1", "y 1 2"}))
		var lines []string
		for name, value := range want {
			lines = append(append(lines, noise.Draw(t, "noise")...), fmt.Sprint(name, " ", value))
		}
		got, err := parseKeyed([]byte(strings.Join(lines, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		_, _ = parseKeyed(rapid.SliceOf(rapid.Byte()).Draw(t, "anything")) // must not panic
	})
	if _, err := parseKeyed([]byte("oom_kill 18446744073709551616")); err == nil {
		t.Error("a number that is too large was taken")
	}
}
