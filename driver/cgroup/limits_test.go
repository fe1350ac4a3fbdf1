package cgroup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/internal/eventually"
)

const mib = 1 << 20

func TestOOMKillsTheGroupAlone(t *testing.T) {
	m := open(t, "")
	guest := create(t, m, "guest", cgroup.Limits{Memory: 32 * mib})
	supervisor := create(t, m, "supervisor", cgroup.Limits{})
	greedy, neighbour := startProcess(t), startProcess(t)
	add(t, guest, greedy.Process.Pid)
	add(t, supervisor, neighbour.Process.Pid)
	neighbour.tell(t, "use 48")

	told := make(chan error, 1)
	go func() {
		kills, err := guest.WaitOOM(t.Context(), 0)
		if err == nil && kills == 0 {
			err = errors.New("told of no kill")
		}
		told <- err
	}()
	if got := greedy.tell(t, "use 64"); got != "" {
		t.Fatalf("it lived on, beyond its limit: %q", got)
	}
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	if kills, err := guest.OOMKills(); err != nil || kills == 0 {
		t.Errorf("counted %d kills, %v", kills, err)
	}
	if kills, err := supervisor.OOMKills(); err != nil || kills != 0 {
		t.Errorf("the neighbour has %d kills, %v", kills, err)
	}
	if got := neighbour.tell(t, "use 1"); got == "" {
		t.Error("the neighbour died too")
	}
	if used := stats(t, guest); used.OOMKills == 0 || used.MaxUsage < 31*mib || used.MaxUsage > 32*mib {
		t.Errorf("stats say %+v; want a kill at 32 MiB", used)
	}
}

func TestWaitOOMEnds(t *testing.T) {
	m := open(t, "")
	t.Run("with the context", func(t *testing.T) {
		group := create(t, m, "context", cgroup.Limits{})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := group.WaitOOM(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
	t.Run("with the group", func(t *testing.T) {
		group := create(t, m, "removed", cgroup.Limits{})
		ended := make(chan error, 1)
		go func() {
			_, err := group.WaitOOM(t.Context(), 0)
			ended <- err
		}()
		if err := group.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, cgroup.ErrGone) {
			t.Fatal(err)
		}
	})
}

func TestLimitsCanBeChanged(t *testing.T) {
	m := open(t, "")
	group := create(t, m, "standby", cgroup.Limits{Memory: 16 * mib})
	p := startProcess(t)
	add(t, group, p.Process.Pid)
	for _, limits := range []cgroup.Limits{
		{Memory: 128 * mib, Reserved: 64 * mib, CPUShares: 500, CPUs: 1.5, PIDs: 100},
		{Memory: 96 * mib},
		{},
		{Memory: 200 * mib, PIDs: 50},
	} {
		if err := group.Update(limits); err != nil {
			t.Fatalf("%+v: %v", limits, err)
		}
	}
	if got := p.tell(t, "use 48"); got == "" {
		t.Fatal("it died of a limit that was raised")
	}
	if err := group.Update(cgroup.Limits{Memory: 1}); err == nil && len(pids(t, group)) > 0 {
		t.Error("a limit below what is in use was taken, and nobody died")
	}
}

func TestV1Files(t *testing.T) {
	root, there := mounts(t)["v1"]
	if !there {
		t.Log("this machine has v2 alone: nothing to see")
		return
	}
	m := open(t, root)
	group := create(t, m, "files", cgroup.Limits{Memory: 64 * mib, Reserved: 32 * mib, CPUShares: 2048, CPUs: 0.5, PIDs: 77})
	check := func(want map[string]string) {
		t.Helper()
		for file, value := range want {
			found, err := filepath.Glob(root + "/" + filepath.Dir(file) + "/freshet-test-*/files/" + filepath.Base(file))
			if err != nil || len(found) != 1 {
				t.Fatalf("%s: found %v, %v", file, found, err)
			}
			if data, err := os.ReadFile(found[0]); err != nil || strings.TrimSpace(string(data)) != value {
				t.Errorf("%s: %q, %v; want %s", file, data, err, value)
			}
		}
	}
	check(map[string]string{
		"memory/memory.limit_in_bytes": "67108864", "memory/memory.soft_limit_in_bytes": "33554432", "memory/memory.memsw.limit_in_bytes": "67108864",
		"cpu/cpu.shares": "2048", "cpu/cpu.cfs_quota_us": "50000", "pids/pids.max": "77",
	})
	if err := group.Update(cgroup.Limits{}); err != nil {
		t.Fatal(err)
	}
	const most = "9223372036854771712"
	check(map[string]string{
		"memory/memory.limit_in_bytes": most, "memory/memory.soft_limit_in_bytes": most, "memory/memory.memsw.limit_in_bytes": most,
		"cpu/cpu.shares": "1024", "cpu/cpu.cfs_quota_us": "-1", "pids/pids.max": "4194304",
	})
}

func TestStatsAreTrue(t *testing.T) {
	m := open(t, "")
	group := create(t, m, "measured", cgroup.Limits{CPUs: 0.2})
	p := startProcess(t)
	add(t, group, p.Process.Pid)
	before, began := stats(t, group), time.Now()
	p.tell(t, "use 40")
	p.tell(t, "spin 500")
	used := stats(t, group)
	if grown := used.RSS - before.RSS; grown < 40*mib || grown > 60*mib {
		t.Errorf("RSS grew by %d bytes; want 40 MiB and what Go adds", grown)
	}
	if used.Usage < used.RSS || used.MaxUsage < used.Usage {
		t.Errorf("usage %d, highest %d, RSS %d: want each at least the next", used.Usage, used.MaxUsage, used.RSS)
	}
	if spent, passed := used.CPU-before.CPU, time.Since(began); spent < 20*time.Millisecond || spent > passed/5+100*time.Millisecond {
		t.Errorf("used %s of processor time in %s; want a fifth at most", spent, passed)
	}
	if used.Throttled == 0 || used.ThrottledPeriods == 0 {
		t.Errorf("throttled for %s in %d periods", used.Throttled, used.ThrottledPeriods)
	}
	if used.PIDs < 2 || used.Kernel == 0 || used.CPUUser+used.CPUSystem == 0 {
		t.Errorf("stats %+v", used)
	}
	twice := used.Add(used)
	if twice.RSS != 2*used.RSS || twice.CPU != 2*used.CPU || twice.PIDs != 2*used.PIDs {
		t.Errorf("the sum %+v", twice)
	}
}

func TestPIDsAreLimited(t *testing.T) {
	m := open(t, "")
	group := create(t, m, "few", cgroup.Limits{PIDs: 60})
	p := startProcess(t)
	add(t, group, p.Process.Pid)
	p.tell(t, "bomb")
	eventually.True(t, "it comes to the limit", func() bool { return stats(t, group).PIDs >= 58 })
	if used := stats(t, group); used.PIDs > 60 {
		t.Errorf("%d processes and threads; 60 are allowed", used.PIDs)
	}
}

func TestUseCPUs(t *testing.T) {
	root, there := mounts(t)["v1"]
	if !there {
		t.Log("this machine has v2 alone: nothing to see")
		return
	}
	dir := filepath.Join(root, "cpuset", "freshet-test-cpus")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually.True(t, "the cpuset group can be removed", func() bool { return os.Remove(dir) == nil })
	})
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("0"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := open(t, root)
	group := create(t, m, "confined", cgroup.Limits{})
	p := startProcess(t)
	add(t, group, p.Process.Pid)
	p.tell(t, "fork")
	if err := group.UseCPUs(dir); err != nil {
		t.Fatal(err)
	}
	confined, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(confined)); len(got) != len(pids(t, group)) || !slices.Equal(got, strings.Fields(joined(pids(t, group)))) {
		t.Errorf("confined %v; want %v", got, pids(t, group))
	}
}

func joined(pids []int) string { return strings.Trim(fmt.Sprint(pids), "[]") }
