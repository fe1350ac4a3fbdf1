//go:build long

package chaos

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/local"
)

// TestCollectionLeavesANodeThatStarts has Nomad collect all that has ended: tasks start as before.
func TestCollectionLeavesANodeThatStarts(t *testing.T) {
	before := begin(t, "one", "online")
	for range 2 {
		if err := shared.nomad.System().GarbageCollect(); err != nil {
			t.Fatal(err)
		}
		mustSay(t, "one")
		mustSay(t, "online")
	}
	await(t, before, "one", "online")
}

// TestFullDisk: the node takes no tasks and says why, and does again when there is room.
func TestFullDisk(t *testing.T) {
	mustSay(t, "one")
	path := filepath.Join(shared.Dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(shared.Dir, &disk); err != nil {
		t.Fatal(err)
	}
	const left = 32 << 20 // for the queue: less than a start needs
	if err := errors.Join(unix.Fallocate(int(file.Fd()), 0, 0, int64(disk.Bavail)*disk.Bsize-left), file.Close()); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the node is unhealthy for want of disk", func() bool { healthy, why := health(t); return !healthy && strings.Contains(why, "disk") })
	_, why := health(t)
	t.Logf("it says: %s", why)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the node is healthy again", func() bool { healthy, _ := health(t); return healthy })
	mustSay(t, "one")
	mustSay(t, "online")
}

// nodes are the ids of the nodes that Nomad knows.
func nodes(t *testing.T) []string {
	t.Helper()
	list, _, err := shared.nomad.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, n := range list {
		ids = append(ids, n.ID)
	}
	return ids
}

// health is the driver's, as Nomad has it.
func health(t *testing.T) (bool, string) {
	t.Helper()
	nodes, _, err := shared.nomad.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Status == "ready" && n.Drivers["freshet"] != nil {
			return n.Drivers["freshet"].Healthy, n.Drivers["freshet"].HealthDescription
		}
	}
	return false, "there is no node"
}

// TestPowerLoss ends every process at once while calls run, and takes mounts, control groups and networks away, as a reboot does. What
// is on the disk is enough to go on.
func TestPowerLoss(t *testing.T) {
	before := begin(t, "one", "online")
	answers := call(t, "online", "sleep", "2s")
	eventually.True(t, "a worker runs the call", func() bool { return busy(t, "online") })
	if err := shared.PowerOff(); err != nil {
		t.Fatal(err)
	}
	<-answers // whoever waits hears that the gateway went
	forget(t)
	if err := shared.Up(); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the call that was running is done", func() bool { return shared.Look(t, app, "online").Pending == 0 })
	await(t, before, "one", "online")
}

// forget takes from the node what no machine keeps over a reboot.
func forget(t *testing.T) {
	t.Helper()
	if err := errors.Join(local.UnmountUnder(shared.Dir), shared.unmount(), shared.mount()); err != nil {
		t.Fatal(err)
	}
	parents, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", "*", shared.CgroupParent()))
	if err != nil {
		t.Fatal(err)
	}
	for _, parent := range append(parents, filepath.Join("/sys/fs/cgroup", shared.CgroupParent())) {
		children, err := filepath.Glob(filepath.Join(parent, "*", "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		for _, child := range children {
			eventually.True(t, child+" is removed", func() bool {
				err := unix.Rmdir(filepath.Dir(child))
				return err == nil || errors.Is(err, unix.ENOENT)
			})
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if name := link.Attrs().Name; name != "lo" && name != "out" && name != "nowhere" {
			_ = netlink.LinkDel(link) // the other end of one that is gone already
		}
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestAgentThatLostItsState leaves tasks that nobody asks for: they are drained and removed, and the agent that came instead starts
// tasks again.
func TestAgentThatLostItsState(t *testing.T) {
	before := begin(t, "one", "online")
	config := filepath.Join(shared.Dir, "nomad.hcl")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte("cgroup_parent "), []byte("orphan_grace = \"2s\"\n    cgroup_parent "), 1)
	if err := os.WriteFile(config, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	answers := call(t, "online", "sleep", "2s")
	eventually.True(t, "a worker runs the call", func() bool { return busy(t, "online") })
	lost, former := units(t, "tasks", "online"), nodes(t)
	if err := os.Rename(filepath.Join(shared.Dir, "nomad", "client"), filepath.Join(shared.Dir, "lost")); err != nil {
		t.Fatal(err)
	}
	kill(t, shared.Agent(t))
	if got := <-answers; got.err != nil {
		t.Errorf("the call ended with %v", got.err)
	}
	for _, id := range former { // who else waits some minutes for it to come back, after a leader of Nomad's was new
		healthy(t)
		if _, _, err := shared.nomad.Nodes().Purge(id, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range lost {
		eventually.True(t, "the task that nobody asks for is gone", func() bool {
			_, err := os.Lstat(dir)
			return errors.Is(err, os.ErrNotExist)
		})
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	pid := shared.Agent(t)
	kill(t, pid) // the next one finds the plugin, and gives it the former grace
	eventually.True(t, "there is another agent", func() bool { return shared.Agent(t) != pid })
	healthy(t)
	if err := os.RemoveAll(filepath.Join(shared.Dir, "lost")); err != nil {
		t.Log(err) // secrets of allocations are mounted there still
	}
	await(t, before, "one", "online")
}
