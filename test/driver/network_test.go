package driver

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/testutils"
)

// TestDNS: in the network of a group, as Nomad makes it; with the group's dns block, and without.
func TestDNS(t *testing.T) {
	name := fmt.Sprintf("freshet-driver-test-%d", os.Getpid())
	for _, args := range [][]string{{"netns", "add", name}, {"-n", name, "link", "set", "lo", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("remove the namespace: %v: %s", err, out)
		}
	})
	n := newNode(t, nil)
	config := strings.Replace(n.shell("exec sleep 1000"), `network_mode = "none"`, "", 1)
	for title, dns := range map[string]*drivers.DNSConfig{
		"the node's": nil,
		"the group's": {
			Servers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"a.example", "b.example"}, Options: []string{"ndots:2", "edns0"},
		},
	} {
		t.Run(title, func(t *testing.T) {
			task := n.newTask(t, false, config, func(cfg *drivers.TaskConfig) {
				cfg.DNS = dns
				cfg.NetworkIsolation = &drivers.NetworkIsolationSpec{Mode: drivers.NetIsolationModeGroup, Path: "/var/run/netns/" + name}
			})
			task.start(t)
			testutils.TestTaskDNSConfig(t, n.DriverHarness, task.ID, dns)
		})
	}
}
