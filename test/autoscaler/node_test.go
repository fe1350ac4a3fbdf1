package autoscaler

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// node is another Nomad client of the cluster, with a driver of its own.
type node struct {
	name, dir string
	port      int // of its HTTP API
	cgroups   string
	cmd       *exec.Cmd
	log       *os.File
}

// nodeSettings are what a node has that others have not: a class, and simulated devices.
type nodeSettings struct {
	class   string
	devices int
}

// startNode starts a node by the first one's configuration, elsewhere. Stop it.
func startNode(name string, settings nodeSettings) (*node, error) {
	n := &node{name: name, dir: filepath.Join(shared.dir, name)}
	for _, dir := range []string{n.plugins(), n.devices()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink(filepath.Join(shared.bin, "freshet-driver"), filepath.Join(n.plugins(), "freshet-driver")); err != nil {
		return nil, err
	}
	for i := range settings.devices {
		link := filepath.Join(n.plugins(), devicePlugin)
		if err := os.Symlink(filepath.Join(shared.dir, "plugins", devicePlugin), link); err != nil && i == 0 {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(n.devices(), fmt.Sprintf("%s-%d", name, i)), nil, 0o600); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(n.dir, "nomad.hcl")
	config, err := n.config(settings)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if n.log, err = os.Create(filepath.Join(shared.dir, "logs", name+".log")); err != nil {
		return nil, err
	}
	n.cmd = exec.Command(os.Getenv("FRESHET_NOMAD"), "agent", "-config", file)
	n.cmd.Dir, n.cmd.Stdout, n.cmd.Stderr = n.devices(), n.log, n.log
	return n, n.cmd.Start()
}

func (n *node) plugins() string { return filepath.Join(n.dir, "plugins") }
func (n *node) devices() string { return filepath.Join(n.dir, "devices") }
func (n *node) driver() string  { return filepath.Join(n.dir, "driver") }

// config is the first node's with what is another's own.
func (n *node) config(settings nodeSettings) (string, error) {
	text, err := os.ReadFile(filepath.Join(shared.dir, "nomad.hcl"))
	if err != nil {
		return "", err
	}
	ports, err := freePorts(3)
	if err != nil {
		return "", err
	}
	n.port = ports[0]
	n.cgroups = regexp.MustCompile(`(?m)^    cgroup_parent .*"(.*)"$`).FindStringSubmatch(string(text))[1] + "-" + n.name
	return replaced(string(text), [][2]string{
		{`(?m)^name .*`, fmt.Sprintf("name = %q", n.name)},
		{`(?m)^data_dir .*`, fmt.Sprintf("data_dir = %q", filepath.Join(n.dir, "nomad"))},
		{`(?m)^plugin_dir .*`, fmt.Sprintf("plugin_dir = %q", n.plugins())},
		{`(?m)^  http = [0-9]+`, fmt.Sprintf("  http = %d", ports[0])},
		{`(?m)^  rpc  = [0-9]+`, fmt.Sprintf("  rpc = %d", ports[1])},
		{`(?m)^  serf = [0-9]+`, fmt.Sprintf("  serf = %d", ports[2])},
		{`(?s)server \{.*?\n\}`, "server {\n  enabled = false\n}"},
		{`(?m)^  network_interface .*`, fmt.Sprintf("  network_interface = \"lo\"\n  node_class = %q\n  servers = [\"127.0.0.1:%d\"]", settings.class, shared.state.Ports.NomadRPC)},
		{`(?m)^    data_dir .*`, fmt.Sprintf("    data_dir = %q", n.driver())},
		{`(?m)^    cgroup_parent .*$`, fmt.Sprintf("    cgroup_parent = %q", n.cgroups)},
		{`memory_mb = [0-9]+`, "memory_mb = 0"},
	})
}

// replaced is a text in which each pattern must be, with what is put in its place.
func replaced(text string, with [][2]string) (string, error) {
	for _, pair := range with {
		pattern := regexp.MustCompile(pair[0])
		if !pattern.MatchString(text) {
			return "", fmt.Errorf("there is no %s in %s", pair[0], text)
		}
		text = pattern.ReplaceAllString(text, pair[1])
	}
	return text, nil
}

// stop ends the node, and what it left outside of its directory. Nomad forgets it.
func (n *node) stop() error {
	err := n.cmd.Process.Signal(syscall.SIGINT)
	_ = n.cmd.Wait() // Nomad calls it a failure to be interrupted
	err = errors.Join(err, n.stopPlugins(), n.log.Close())
	clear := exec.Command(filepath.Join(shared.bin, "freshet-driver"), "clear", "-data-dir", n.driver(), "-cgroup-parent", n.cgroups,
		"-runsc", os.Getenv("FRESHET_RUNSC"), "-worker", filepath.Join(shared.bin, "freshet-worker"))
	if out, failure := clear.CombinedOutput(); failure != nil {
		err = errors.Join(err, fmt.Errorf("clear up after node %s: %w: %s", n.name, failure, bytes.TrimSpace(out)))
	}
	stub, failure := n.find()
	if failure != nil || stub == nil {
		return errors.Join(err, failure)
	}
	_, _, failure = shared.nomad.Nodes().Purge(stub.ID, nil)
	return errors.Join(err, failure)
}

// stopPlugins ends what the agent left behind: one that is stopped while it starts its plugins does (seen with Nomad 1.6.3).
func (n *node) stopPlugins() error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, _ := os.ReadFile(file) // none when it ended
		if program, _, _ := bytes.Cut(line, []byte{0}); filepath.Dir(string(program)) != n.plugins() {
			continue
		}
		pid, failure := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if failure == nil {
			failure = syscall.Kill(pid, syscall.SIGKILL)
		}
		if failure != nil && !errors.Is(failure, syscall.ESRCH) {
			err = errors.Join(err, failure)
		}
	}
	return err
}

// find is the node as Nomad lists it; nil before it does.
func (n *node) find() (*api.NodeListStub, error) {
	nodes, _, err := shared.nomad.Nodes().List(nil)
	if err != nil {
		return nil, err
	}
	for _, stub := range nodes {
		if stub.Name == n.name {
			return stub, nil
		}
	}
	return nil, nil
}

// ready tells that Nomad may place workers there.
func (n *node) ready() bool {
	stub, err := n.find()
	return err == nil && stub != nil && stub.Status == api.NodeStatusReady && stub.Drivers["freshet"] != nil && stub.Drivers["freshet"].Healthy
}

// secondNode joins another node to the cluster for the time of a test.
func secondNode(t *testing.T) {
	t.Helper()
	n, err := startNode("second", nodeSettings{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Error(err)
		}
	})
	eventually.True(t, "the second node is ready", n.ready)
}

// firstNode is the one that `freshet up` runs.
func firstNode(t *testing.T) *api.Node {
	t.Helper()
	first := &node{name: "freshet"}
	stub, err := first.find()
	if err != nil || stub == nil {
		t.Fatalf("find the first node: %v", err)
	}
	info, _, err := shared.nomad.Nodes().Info(stub.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// freePorts are some that nobody listens to.
func freePorts(count int) ([]int, error) {
	ports := make([]int, count)
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = listener.Close() }() // held until all are chosen
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}
