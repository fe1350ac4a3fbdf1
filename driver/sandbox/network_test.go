package sandbox_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/sandbox"
)

const (
	guestAddress = "10.211.77.2"
	otherAddress = "10.211.77.1"
)

// namespace makes a network namespace that ends with the test, and returns its path.
func namespace(t *testing.T) (string, netns.NsHandle) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	must(t, os.WriteFile(path, nil, 0o600))
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	must(t, <-made)
	t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
	handle, err := netns.GetFromPath(path)
	must(t, err)
	t.Cleanup(func() { must(t, handle.Close()) })
	return path, handle
}

// connected makes two namespaces with a cable between them: one for a guest, and one where somebody answers on port 80.
func connected(t *testing.T) string {
	t.Helper()
	path, guest := namespace(t)
	_, other := namespace(t)
	links, err := netlink.NewHandleAt(guest)
	must(t, err)
	defer links.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer", PeerNamespace: netlink.NsFd(other)}
	must(t, links.LinkAdd(veth))
	raise(t, guest, "eth0", guestAddress)
	raise(t, other, "peer", otherAddress)
	answer(t, other, otherAddress+":80", "from outside\n")
	return path
}

func raise(t *testing.T, ns netns.NsHandle, name, address string) {
	t.Helper()
	links, err := netlink.NewHandleAt(ns)
	must(t, err)
	defer links.Close()
	link, err := links.LinkByName(name)
	must(t, err)
	parsed, err := netlink.ParseAddr(address + "/24")
	must(t, err)
	must(t, links.AddrAdd(link, parsed))
	must(t, links.LinkSetUp(link))
}

// answer writes a line to whoever connects to an address in a namespace, until the test ends.
func answer(t *testing.T, ns netns.NsHandle, address, line string) string {
	t.Helper()
	type opened struct {
		listener net.Listener
		err      error
	}
	listening := make(chan opened, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := netns.Set(ns); err != nil {
			listening <- opened{err: err}
			return
		}
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		listening <- opened{listener, err}
	}()
	got := <-listening
	must(t, got.err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := got.listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, line)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = got.listener.Close()
		<-done
	})
	return got.listener.Addr().String()
}

// loopback is a script that talks to itself.
const loopback = `(echo to myself | nc -l -p 7000 >/dev/null &) ; while ! nc 127.0.0.1 7000 </dev/null 2>/dev/null; do sleep 0.02; done; `

func TestNetworks(t *testing.T) {
	here, err := netns.Get()
	must(t, err)
	t.Cleanup(func() { must(t, here.Close()) })
	host := strings.ReplaceAll(answer(t, here, "127.0.0.1:0", "from the host\n"), ":", " ")
	script := loopback + "nc -w 1 " + otherAddress + " 80 2>/dev/null; nc -w 3 " + host + " 2>/dev/null; ip addr show eth0 2>/dev/null | grep -o 'inet 10[0-9.]*'"
	for _, test := range []struct {
		network sandbox.Network
		ns      bool
		want    string
	}{
		{sandbox.NetworkNone, false, "to myself"},
		{sandbox.NetworkOwn, true, "to myself\nfrom outside\ninet " + guestAddress},
		{sandbox.NetworkShared, true, "to myself\nfrom outside\ninet " + guestAddress},
		{sandbox.NetworkHost, false, "to myself\nfrom the host"},
	} {
		t.Run("network "+string(test.network), func(t *testing.T) {
			cfg := shell(t, shellRoot(t), script)
			cfg.Network, cfg.Capabilities = test.network, sandbox.DefaultCapabilities()
			if test.ns {
				cfg.NetNS = connected(t)
			}
			if got, _ := run(t, cfg); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestSandboxesShareANamespace: as the tasks of a group do, and a task that is started again.
func TestSandboxesShareANamespace(t *testing.T) {
	ns, root := connected(t), shellRoot(t)
	with := func(id, script string) sandbox.Config {
		cfg := shell(t, root, script)
		cfg.ID, cfg.Network, cfg.NetNS = id, sandbox.NetworkShared, ns
		return cfg
	}
	for range 2 {
		server := start(t, with("server", "echo from a neighbour | nc -l -p 8080"))
		got, _ := run(t, with("client", "while ! nc 127.0.0.1 8080 </dev/null 2>/dev/null; do sleep 0.02; done; nc -w 3 "+otherAddress+" 80"))
		if got != "from a neighbour\nfrom outside" {
			t.Errorf("the client got %q", got)
		}
		if exit, err := server.Wait(); err != nil || exit.Code != 0 {
			t.Errorf("the server ended with %v, %v", exit, err)
		}
	}
}

func TestANamespaceThatIsNotThere(t *testing.T) {
	cfg := shell(t, shellRoot(t), "")
	cfg.Network, cfg.NetNS = sandbox.NetworkOwn, "/nowhere/netns"
	if made, err := sandbox.Create(cfg, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "/nowhere/netns") {
		if err == nil {
			_ = made.Destroy()
		}
		t.Errorf("got %v", err)
	}
}
