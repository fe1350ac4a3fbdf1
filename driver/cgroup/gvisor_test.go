package cgroup_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/eventually"
)

// guest is a real sandbox whose program uses resources when it is told to.
type guest struct {
	*sandbox.Sandbox
	out *bufio.Reader
}

// kitchen is what all guests of a test share.
type kitchen struct{ dir, runsc string }

func newKitchen(t testing.TB) kitchen {
	t.Helper()
	k := kitchen{t.TempDir(), os.Getenv("FRESHET_RUNSC")}
	if k.runsc == "" {
		path, err := exec.LookPath("runsc")
		if err != nil {
			t.Fatal("runsc is needed: put the pinned one on PATH or into FRESHET_RUNSC (make tools prints it)")
		}
		k.runsc = path
	}
	for _, d := range []string{"proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(k.dir, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(k.dir, "rootfs", "guest"), "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(k.dir, "shared", "null-netns"), syscall.MNT_DETACH) }) // where gVisor keeps one
	return k
}

// create makes an empty sandbox.
func (k kitchen) create(t testing.TB, id string) *guest {
	t.Helper()
	s, err := sandbox.Create(sandbox.Config{
		ID: id, Runsc: k.runsc, StateDir: filepath.Join(k.dir, id), SharedDir: filepath.Join(k.dir, "shared"),
		Rootfs: filepath.Join(k.dir, "rootfs"), Args: []string{"/guest"},
	}, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
		for _, file := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
			_ = file.Close()
		}
	})
	return &guest{s, bufio.NewReader(s.Stdout)}
}

// start creates a sandbox in the group and starts its guest.
func (k kitchen) start(t testing.TB, group *cgroup.Group) *guest {
	t.Helper()
	var g *guest
	if err := group.Enter(func() error { g = k.create(t, group.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	return g
}

// tell gives the guest a line to do, and returns its answer, or "" when it died.
func (g *guest) tell(t testing.TB, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(g.Stdin, line); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err)
	}
	if err := g.Stdout.SetReadDeadline(time.Now().Add(eventually.Patience)); err != nil {
		t.Fatal(err)
	}
	answer, _ := g.out.ReadString('\n') // io.EOF when it died
	return strings.TrimSpace(answer)
}

// family are the processes of the sandbox: its own and those that they started.
func (g *guest) family(t testing.TB) []int {
	t.Helper()
	family := g.PIDs()
	for i := 0; i < len(family); i++ {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", family[i]))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				continue // the thread ended
			}
			for _, field := range strings.Fields(string(data)) {
				child, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				family = append(family, child)
			}
		}
	}
	return family
}

func TestAGuestsMemoryIsItsGroups(t *testing.T) {
	k, m := newKitchen(t), open(t, "")
	group := create(t, m, "guest", cgroup.Limits{Memory: 512 * mib})
	g := k.start(t, group)
	g.tell(t, "hello")
	before := stats(t, group)
	t.Logf("an idle sandbox: %d MiB resident, %d MiB in all, %d threads", before.RSS/mib, before.Usage/mib, before.PIDs)
	if got := g.tell(t, "use 100"); got != "used 100" {
		t.Fatalf("answered %q", got)
	}
	if grown := stats(t, group).RSS - before.RSS; grown < 100*mib || grown > 130*mib {
		t.Errorf("RSS grew by %d MiB for a guest that took 100", grown/mib)
	}
	family := g.family(t)
	if slices.Sort(family); len(family) < 3 || !slices.Equal(family, pids(t, group)) {
		t.Errorf("the sandbox has processes %v, the group %v", family, pids(t, group))
	}
}

func TestAGuestsOOMIsItsOwn(t *testing.T) {
	k, m := newKitchen(t), open(t, "")
	limits := cgroup.Limits{Memory: 128 * mib, PIDs: cgroup.GuestPIDs(100)}
	greedyGroup, neighbourGroup := create(t, m, "greedy", limits), create(t, m, "neighbour", limits)
	greedy, neighbour := k.start(t, greedyGroup), k.start(t, neighbourGroup)
	neighbour.tell(t, "use 20")
	if got := greedy.tell(t, "use 200"); got != "" {
		t.Fatalf("it lived on, beyond its limit: %q", got)
	}
	if kills, err := greedyGroup.WaitOOM(t.Context(), 0); err != nil || kills == 0 {
		t.Fatalf("counted %d kills, %v", kills, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Patience)
	defer cancel()
	if err := errors.Join(greedyGroup.Kill(ctx), greedy.Destroy(), greedyGroup.Remove(ctx)); err != nil {
		t.Fatal(err)
	}
	if got := neighbour.tell(t, "use 1"); got != "used 21" {
		t.Errorf("the neighbour answered %q", got)
	}
	if kills, err := neighbourGroup.OOMKills(); err != nil || kills != 0 {
		t.Errorf("the neighbour has %d kills, %v", kills, err)
	}
}

func TestAStandbysGroupBecomesItsTasks(t *testing.T) {
	k, m := newKitchen(t), open(t, "")
	standby := k.start(t, create(t, m, "standby-1", cgroup.Limits{Memory: 64 * mib}))
	standby.tell(t, "use 10")
	adopted, err := m.Load("standby-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := adopted.Update(cgroup.Limits{Memory: 256 * mib, CPUShares: 500}); err != nil {
		t.Fatal(err)
	}
	if got := standby.tell(t, "use 100"); got != "used 110" {
		t.Errorf("with the task's limit it answered %q", got)
	}
	if used := stats(t, adopted).RSS; used < 110*mib {
		t.Errorf("the task is charged for %d MiB of 110", used/mib)
	}
}

func TestAForkBombHurtsNobody(t *testing.T) {
	k, m := newKitchen(t), open(t, "")
	group, neighbourGroup := create(t, m, "bomb", cgroup.Limits{Memory: 256 * mib, CPUs: 0.5, PIDs: cgroup.GuestPIDs(20)}), create(t, m, "neighbour", cgroup.Limits{})
	bomb, neighbour := k.start(t, group), k.start(t, neighbourGroup)
	if _, err := fmt.Fprintln(bomb.Stdin, "bomb"); err != nil {
		t.Fatal(err)
	}
	before := stats(t, group).CPU
	eventually.True(t, "it bombs", func() bool { return stats(t, group).CPU > before+time.Second })
	if got := neighbour.tell(t, "hello"); got != "hello" {
		t.Errorf("the neighbour answered %q", got)
	}
	if used := stats(t, group); int64(used.PIDs) > cgroup.GuestPIDs(20) || used.Usage > 256*mib {
		t.Errorf("the bomb has %+v", used)
	}
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Patience)
	defer cancel()
	if err := errors.Join(group.Kill(ctx), bomb.Destroy(), group.Remove(ctx)); err != nil {
		t.Fatal(err)
	}
}

func TestAGuestAtItsPIDsLimitDiesAlone(t *testing.T) {
	k, m := newKitchen(t), open(t, "")
	group, neighbourGroup := create(t, m, "busy", cgroup.Limits{PIDs: 30, CPUs: 0.5}), create(t, m, "neighbour", cgroup.Limits{})
	busy, neighbour := k.start(t, group), k.start(t, neighbourGroup)
	if _, err := fmt.Fprintln(busy.Stdin, "busy 10"); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the sandbox ends", func() bool { return len(pids(t, group)) == 0 })
	if got := neighbour.tell(t, "hello"); got != "hello" {
		t.Errorf("the neighbour answered %q", got)
	}
	if kills, err := group.OOMKills(); err != nil || kills != 0 {
		t.Errorf("it counts %d kills for want of memory, %v", kills, err)
	}
}
