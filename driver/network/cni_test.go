package network_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/network"
	"github.com/freshet-dev/freshet/internal/netnstest"
)

const cniPlugins = "github.com/containernetworking/plugins/plugins/"

// buildCNI builds the plugins that Nomad's bridge mode calls, and has the iptables that they call.
func buildCNI(dir string) error {
	if _, err := exec.LookPath("iptables"); err != nil {
		if out, err := exec.Command("apt-get", "install", "-y", "iptables").CombinedOutput(); err != nil {
			return fmt.Errorf("install iptables: %w: %s", err, out)
		}
	}
	args := []string{"install"}
	for _, plugin := range []string{"main/bridge", "main/loopback", "ipam/host-local", "meta/portmap", "meta/firewall"} {
		args = append(args, cniPlugins+plugin+"@v1.9.1")
	}
	install := exec.Command("go", args...)
	install.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("build CNI plugins: %w: %s", err, out)
	}
	return nil
}

// cni is a list of plugins for one namespace, as Nomad calls it.
type cni struct {
	dir, namespace string
	list           []map[string]any
}

func (c cni) call(verb string, list []map[string]any) error {
	var previous json.RawMessage
	for _, conf := range list {
		conf["cniVersion"], conf["name"] = "0.4.0", "nomad"
		if previous != nil {
			conf["prevResult"] = previous
		}
		input, err := json.Marshal(conf)
		if err != nil {
			return err
		}
		plugin := exec.Command(filepath.Join(c.dir, conf["type"].(string)))
		plugin.Stdin = bytes.NewReader(input)
		plugin.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID=alloc", "CNI_NETNS="+c.namespace, "CNI_IFNAME=eth0", "CNI_PATH="+c.dir)
		if conf["type"] == "loopback" {
			plugin.Env = append(plugin.Env, "CNI_IFNAME=lo")
		}
		out, err := plugin.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s of %s: %w: %s", verb, conf["type"], err, out)
		}
		if verb == "ADD" {
			previous = out
		}
	}
	return nil
}

// TestJoinsTheBridgeOfCNI: where Nomad makes the network, a sandbox joins it as it is, beside the pool's.
func TestJoinsTheBridgeOfCNI(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	file := filepath.Join(t.TempDir(), "alloc")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := netnstest.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", file, "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(file, unix.MNT_DETACH) }) // nothing is left to do when it fails
	bridge := cni{dir: os.Getenv(cniEnv), namespace: file, list: []map[string]any{
		{"type": "loopback"},
		{
			"type": "bridge", "bridge": "nomad", "ipMasq": true, "isGateway": true, "forceAddress": true, "hairpinMode": false,
			"ipam": map[string]any{
				"type": "host-local", "dataDir": t.TempDir(), "ranges": [][]map[string]string{{{"subnet": "172.26.64.0/20"}}},
				"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
			},
		},
		{"type": "firewall", "backend": "iptables", "iptablesAdminChainName": "NOMAD-ADMIN"},
		{
			"type": "portmap", "snat": true, "capabilities": map[string]bool{"portMappings": true},
			"runtimeConfig": map[string]any{"portMappings": []map[string]any{{"hostPort": 8088, "containerPort": 80, "protocol": "tcp"}}},
		},
	}}
	if err := bridge.call("ADD", bridge.list); err != nil {
		t.Fatal(err)
	}
	g := start(t, "bridged", file)
	for _, r := range []reach{
		{"addresses", "…eth0=172.26.64.2/20"},
		{"listen :80", "listening"},
		{"tcp " + website + ":80", masked},
		{"udp " + resolver + ":53", masked},
	} {
		r.check(t, g)
	}
	wantCall(t, "tcp", "172.26.64.2:80", "saw 172.26.64.1")
	wantCall(t, "tcp", hostAddress+":8088", "guest at 172.26.64.2:80")
	beyond(t, func() error {
		wantCall(t, "tcp", hostAddress+":8088", "guest at 172.26.64.2:80")
		return nil
	})
	// The firewall plugin's chains do not stand in the way of the pool's sandboxes, nor is a bridged one their neighbour.
	own := start(t, "own", take(t, pool, "own", network.Policy{Egress: true}).Path)
	reach{"tcp " + website + ":80", masked}.check(t, own)
	reach{"tcp 172.26.64.2:80", refused}.check(t, own)
	reach{"tcp 172.26.64.1:80", refused}.check(t, own)
	if got := g.do("tcp " + take(t, pool, "own", network.Policy{Egress: true}).Address.String() + ":80"); !strings.HasPrefix(got, "error") {
		t.Errorf("a bridged sandbox reaches one of the pool: %q", got)
	}
}
