package cgroup_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/internal/eventually"
)

// roleEnv makes the test binary a process that uses what it is told to.
const roleEnv = "FRESHET_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		play(role)
	}
	goleak.VerifyTestMain(m)
}

// play does what a line of input says, forever: it answers when it has done it.
func play(role string) {
	if role == "child" {
		select {}
	}
	held := 0
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		number, _ := strconv.Atoi(rest)
		switch verb {
		case "use": // MiB
			// Not Go's own memory, of which the race detector makes several times as much.
			block, err := unix.Mmap(-1, 0, number<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err != nil {
				panic(err)
			}
			for i := 0; i < len(block); i += os.Getpagesize() {
				block[i] = 1
			}
			held += number
		case "spin": // ms
			for until := time.Now().Add(time.Duration(number) * time.Millisecond); time.Now().Before(until); {
			}
		case "fork":
			child := exec.Command("/proc/self/exe")
			child.Env = append(os.Environ(), roleEnv+"=child")
			if err := child.Start(); err != nil {
				fmt.Println(err)
				continue
			}
		case "bomb":
			go func() {
				for {
					child := exec.Command("/bin/sh", "-c", "sleep 0.01; sleep 1000")
					if child.Start() == nil {
						go func() { _ = child.Wait() }()
					}
				}
			}()
		}
		fmt.Println("done", held)
	}
	os.Exit(0)
}

// process is one that was started to use resources.
type process struct {
	*exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func startProcess(t *testing.T) *process {
	return startWith(t, (*exec.Cmd).Start)
}

func startWith(t *testing.T, start func(*exec.Cmd) error) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=parent")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, in, bufio.NewReader(out)}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it may have ended
	return p
}

// tell gives it a line to do, and returns its answer, or "" when it died.
func (p *process) tell(t *testing.T, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		t.Fatal(err)
	}
	answer, _ := p.out.ReadString('\n') // io.EOF when it died
	return strings.TrimSpace(answer)
}

var parents atomic.Int64

// mounts are the roots of this machine's control groups, by version: on one with v1 there may be an empty v2 beside it.
func mounts(t testing.TB) map[string]string {
	t.Helper()
	data, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		switch fields := strings.Fields(line); fields[2] {
		case "cgroup":
			found["v1"] = filepath.Dir(fields[1])
		case "cgroup2":
			found["v2"] = fields[1]
		}
	}
	if len(found) == 0 {
		t.Fatal("no control groups are mounted: mount -t cgroup2 none /sys/fs/cgroup")
	}
	return found
}

// open opens a manager of the test's own, and removes all of it in the end.
func open(t testing.TB, root string) *cgroup.Manager {
	t.Helper()
	parent := fmt.Sprintf("freshet-test-%d-%d", os.Getpid(), parents.Add(1))
	m, err := cgroup.Open(cgroup.Config{Parent: parent, Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), eventually.Patience)
		defer cancel()
		ids, err := m.List()
		if err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			group, err := m.Load(id)
			if err != nil {
				t.Error(err)
				continue
			}
			if err := errors.Join(group.Kill(ctx), group.Remove(ctx)); err != nil {
				t.Error(err)
			}
		}
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + parent); len(left) > 0 {
			t.Errorf("left %v", left)
		}
	})
	return m
}

func create(t testing.TB, m *cgroup.Manager, id string, limits cgroup.Limits) *cgroup.Group {
	t.Helper()
	group, err := m.Create(id, limits)
	if err != nil {
		t.Fatal(err)
	}
	return group
}

func add(t testing.TB, group *cgroup.Group, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := group.Add(pid); err != nil {
			t.Fatal(err)
		}
	}
}

func pids(t testing.TB, group *cgroup.Group) []int {
	t.Helper()
	pids, err := group.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

func stats(t testing.TB, group *cgroup.Group) cgroup.Stats {
	t.Helper()
	stats, err := group.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// eachVersion runs the test with each version that is mounted.
func eachVersion(t *testing.T, test func(t *testing.T, m *cgroup.Manager)) {
	for version, root := range mounts(t) {
		t.Run(version, func(t *testing.T) { test(t, open(t, root)) })
	}
}

func TestAGroupsLife(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *cgroup.Manager) {
		group := create(t, m, "task.guest", cgroup.Limits{})
		if _, err := m.Create("task.guest", cgroup.Limits{}); !errors.Is(err, cgroup.ErrExists) {
			t.Fatalf("created twice: %v", err)
		}
		parent := startProcess(t)
		add(t, group, parent.Process.Pid)
		parent.tell(t, "fork")
		if got := pids(t, group); len(got) != 2 || !slices.Contains(got, parent.Process.Pid) {
			t.Fatalf("processes %v; want %d and its child", got, parent.Process.Pid)
		}
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := group.Remove(short); err == nil || !strings.Contains(err.Error(), strconv.Itoa(parent.Process.Pid)) {
			t.Fatalf("removing a group in use: %v; want the processes that are left", err)
		}
		found, err := m.Load("task.guest") // as after the driver's restart
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(found.Kill(t.Context()), found.Remove(t.Context())); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(found.Kill(t.Context()), found.Remove(t.Context())); err != nil {
			t.Fatalf("killing and removing what is gone: %v", err)
		}
		if _, err := m.Load("task.guest"); !errors.Is(err, cgroup.ErrGone) {
			t.Fatalf("loaded what is gone: %v", err)
		}
		if _, err := found.Stats(); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("measured what is gone: %v", err)
		}
	})
}

func TestListNamesWhatIsThere(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *cgroup.Manager) {
		create(t, m, "b", cgroup.Limits{})
		create(t, m, "a", cgroup.Limits{})
		if ids, err := m.List(); err != nil || !slices.Equal(ids, []string{"a", "b"}) {
			t.Fatalf("listed %v, %v", ids, err)
		}
		if err := m.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "a, b") {
			t.Fatalf("closed over groups: %v", err)
		}
	})
}

func TestHalfRemovedGroupsAreSwept(t *testing.T) {
	root, v1 := mounts(t)["v1"]
	if !v1 {
		root = mounts(t)["v2"]
	}
	m := open(t, root)
	create(t, m, "half", cgroup.Limits{})
	half, _ := filepath.Glob(root + "/freezer/freshet-test-*/half")
	for _, dir := range half {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := m.List(); err != nil || !slices.Equal(ids, []string{"half"}) {
		t.Fatalf("listed %v, %v", ids, err)
	}
	group, err := m.Load("half")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(group.Kill(t.Context()), group.Remove(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveTakesWhatIsNested(t *testing.T) {
	for version, root := range mounts(t) {
		t.Run(version, func(t *testing.T) {
			m := open(t, root)
			group := create(t, m, "outer", cgroup.Limits{})
			outer, _ := filepath.Glob(root + "/*/freshet-test-*/outer")
			if version == "v2" {
				outer, _ = filepath.Glob(root + "/freshet-test-*/outer")
			}
			for _, dir := range outer {
				if err := os.MkdirAll(filepath.Join(dir, "inner", "most"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := group.Remove(t.Context()); err != nil || len(outer) == 0 {
				t.Fatalf("removing %v: %v", outer, err)
			}
		})
	}
}

func TestEnter(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *cgroup.Manager) {
		group := create(t, m, "entered", cgroup.Limits{})
		before, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		var child *process
		broken := errors.New("broken")
		if err := group.Enter(func() error { child = startProcess(t); return broken }); !errors.Is(err, broken) {
			t.Fatalf("the function's error came back as %v", err)
		}
		if got := pids(t, group); !slices.Equal(got, []int{child.Process.Pid}) {
			t.Errorf("processes %v; want %d, which was started inside", got, child.Process.Pid)
		}
		if after, err := os.ReadFile("/proc/self/cgroup"); err != nil || string(after) != string(before) {
			t.Errorf("was in\n%s now in\n%s", before, after)
		}
	})
}

func TestStart(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *cgroup.Manager) {
		group := create(t, m, "started", cgroup.Limits{})
		before, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		var want []int
		for range 20 { // from many threads
			want = append(want, startWith(t, group.Start).Process.Pid)
		}
		where, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", want[0]))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("a started process is in\n%s", where)
		if got := pids(t, group); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("processes %v; want %v", got, want)
		}
		threads, err := filepath.Glob("/proc/self/task/*/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if after, err := os.ReadFile(thread); err == nil && string(after) != string(before) {
				t.Errorf("%s was in\n%s now in\n%s", thread, before, after)
			}
		}
		if err := group.Start(exec.Command("/nothing/here")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("starting what is not there: %v", err)
		}
	})
}

func TestKillEndsAForkBomb(t *testing.T) {
	eachVersion(t, func(t *testing.T, m *cgroup.Manager) {
		group := create(t, m, "bomb", cgroup.Limits{})
		bomb := startProcess(t)
		add(t, group, bomb.Process.Pid)
		bomb.tell(t, "bomb")
		eventually.True(t, "it forks", func() bool { return len(pids(t, group)) > 20 })
		if err := group.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), eventually.Patience)
		defer cancel()
		if err := group.Remove(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWrongInput(t *testing.T) {
	for _, parent := range []string{"", ".", "/freshet", "a/../b"} {
		if _, err := cgroup.Open(cgroup.Config{Parent: parent}); err == nil {
			t.Errorf("parent %q was taken", parent)
		}
	}
	if _, err := cgroup.Open(cgroup.Config{Parent: "freshet", Root: t.TempDir()}); err == nil {
		t.Error("a directory that is no mount was taken")
	}
	m := open(t, "")
	for _, id := range []string{"", "a/b", "..", ".hidden", "a b", "a..b", strings.Repeat("x", 201)} {
		if _, err := m.Create(id, cgroup.Limits{}); err == nil {
			t.Errorf("id %q was taken", id)
		}
	}
	for field, limits := range map[string]cgroup.Limits{
		"memory limit":    {Memory: -1},
		"reserved memory": {Memory: 10, Reserved: 11},
		"cpu shares":      {CPUShares: 1},
		"cpus":            {CPUs: 0.001},
		"pids limit":      {PIDs: 1 << 23},
	} {
		if _, err := m.Create("wrong", limits); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: %v", limits, err)
		}
	}
	group := create(t, m, "right", cgroup.Limits{})
	if err := group.Add(0); err == nil {
		t.Error("process 0 was taken")
	}
	gone := startProcess(t)
	_, _ = gone.Process.Kill(), gone.Wait() // so that its number means nobody
	if err := group.Add(gone.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("adding a process that ended: %v", err)
	}
}
