//go:build long

package chaos

import (
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
	before := rest(t, "one", "online")
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
	before := rest(t, "one", "online")
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
