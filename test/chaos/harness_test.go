//go:build long

// Package chaos tests that a node comes back by itself: from plugins, agents and sandboxes that are killed, from snapshots that are
// damaged, from a loss of power, and from a full disk.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/netnstest"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/test/clustertest"
)

// longEnv asks for the long form of these tests.
const longEnv = "LONG"

const (
	// patience bounds every wait for a call.
	patience = 60 * time.Second
	// app is the tests' app.
	app = "misbehave"
	// diskBytes is the size of the cluster's disk, of which the queue reserves some; what is not used takes no room.
	diskBytes = 64 << 30
)

// node is the machine of all tests: a cluster on a disk of its own.
type node struct {
	*clustertest.Cluster
	nomad *api.Client
	image string
}

var shared *node

// TestMain runs the tests in a network namespace, for the driver makes interfaces and firewall rules, and in a mount namespace, so
// that no mount is left whatever happens.
func TestMain(m *testing.M) {
	os.Exit(netnstest.Inside(func() int { return run(m) }))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = &node{
		Cluster: &clustertest.Cluster{Bin: os.Getenv("FRESHET_BIN"), Dir: filepath.Join(dir, "state")},
		image:   filepath.Join(dir, "disk.img"),
	}
	if shared.Bin == "" {
		fmt.Fprintln(os.Stderr, "FRESHET_BIN must name the folder of freshet's programs: use `make test`")
		return 1
	}
	code := 1
	if err := shared.start(); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err, shared.Output())
	}
	err = shared.Stop()
	if code != 0 || err != nil {
		shared.TellLogs(os.Stderr)
	}
	if err := errors.Join(err, shared.unmount(), os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

func (n *node) start() error {
	for _, step := range []func() error{network, n.makeDisk, n.mount, n.Up} {
		if err := step(); err != nil {
			return err
		}
	}
	config := api.DefaultConfig()
	config.Address = n.State.Nomad()
	var err error
	if n.nomad, err = api.NewClient(config); err != nil {
		return err
	}
	if out, err := n.Freshet("deploy", "../guests/misbehave"); err != nil {
		return fmt.Errorf("deploy: %w: %s", err, out)
	}
	return n.deployOnline()
}

// network gives the namespace a way out, to nowhere: the driver looks for one.
func network() error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	out := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "nowhere"}
	address, err := netlink.ParseAddr("198.51.100.1/24")
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return netlink.LinkSetUp(loopback) },
		func() error { return netlink.LinkAdd(out) },
		func() error { return netlink.LinkSetUp(out) },
		func() error { return netlink.AddrAdd(out, address) },
		func() error {
			return netlink.RouteAdd(&netlink.Route{LinkIndex: out.Attrs().Index, Gw: net.IPv4(198, 51, 100, 2)})
		},
	} {
		if err := step(); err != nil {
			return fmt.Errorf("make the network: %w", err)
		}
	}
	return nil
}

// makeDisk makes a file system in a file.
func (n *node) makeDisk() error {
	if err := os.WriteFile(n.image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(n.image, diskBytes); err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", n.image).CombinedOutput(); err != nil {
		return fmt.Errorf("make the disk: %w: %s", err, out)
	}
	return os.MkdirAll(n.Dir, 0o700)
}

// mount mounts the disk where the cluster keeps its state. The loop device goes with the mount.
func (n *node) mount() error {
	if out, err := exec.Command("mount", "-o", "loop", n.image, n.Dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount the disk: %w: %s", err, out)
	}
	return nil
}

func (n *node) unmount() error {
	if err := unix.Unmount(n.Dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the disk: %w", err)
	}
	return nil
}

// deployOnline deploys a copy of a function that reaches the network, so that its workers have namespaces, interfaces and rules.
func (n *node) deployOnline() error {
	return n.deployCopy("one", "online", func(_ *api.TaskGroup, task *api.Task) {
		task.Config["network"] = []map[string]any{{"egress": true}}
	})
}

// deployCopy deploys a function once more by another name, changed.
func (n *node) deployCopy(of, as string, change func(group *api.TaskGroup, task *api.Task)) error {
	job, _, err := n.nomad.Jobs().Info(app+"."+of, nil)
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	id := app + "." + as
	job.ID, job.Name, job.Version, job.Stable = &id, &id, nil, nil
	job.Meta["freshet.function"] = as
	change(job.TaskGroups[0], job.TaskGroups[0].Tasks[0])
	if _, _, err := n.nomad.Jobs().Register(job, nil); err != nil {
		return fmt.Errorf("register job: %w", err)
	}
	return nil
}

// long tells whether the long form was asked for; of the two numbers it takes the second then.
func long(short, long int) int {
	if os.Getenv(longEnv) != "" {
		return long
	}
	return short
}

// told is what the tests' app answers.
type told struct {
	Said   string `json:"said"`
	Worker string `json:"worker"`
	Loaded int64  `json:"loaded"`
}

// tell calls a function of the tests' app.
func tell(t *testing.T, function, do, with string) (told, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return client.Call[map[string]string, told](ctx, client.New(shared.State.Gateway()), app+"."+function, map[string]string{"do": do, "with": with})
}

// mustSay calls a function and fails the test unless it answers.
func mustSay(t *testing.T, function string) told {
	t.Helper()
	text := time.Now().String()
	eventually.True(t, app+"."+function+" is known", func() bool { return shared.Look(t, app, function).App == app })
	answer, err := tell(t, function, "say", text)
	if err != nil || answer.Said != text {
		t.Fatalf("%s answered %+v, %v", function, answer, err)
	}
	return answer
}

// healthy waits until the node offers the driver, after a kill.
func healthy(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := shared.State.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// kill ends a process as a crash would.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
}
