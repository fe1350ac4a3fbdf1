package network_test

import (
	"bufio"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/network"
	"github.com/freshet-dev/freshet/driver/sandbox"
)

// TestInTheDriversSandbox: the driver's own sandboxes, with few rights, in a namespace of the pool.
func TestInTheDriversSandbox(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	ns := take(t, pool, "one", network.Policy{Egress: true})
	root, err := rootfs()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	shared := filepath.Join(dir, "shared")
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(shared, "null-netns"), unix.MNT_DETACH) }) // gVisor's own, made or not
	s, err := sandbox.Create(sandbox.Config{
		ID: "one", Runsc: os.Getenv("FRESHET_RUNSC"), StateDir: filepath.Join(dir, "state"), SharedDir: shared,
		Rootfs: root, Args: []string{"/guest"}, Network: sandbox.NetworkOwn, NetNS: ns.Path,
	}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, in: s.Stdin, out: bufio.NewReader(s.Stdout)}
	for _, r := range []reach{
		{"addresses", "…eth0=192.0.0.2/30"},
		{"tcp " + website + ":80", masked},
		{"udp " + resolver + ":53", masked},
		{"tcp " + metadata + ":80", refused},
		{"tcp " + hostAddress + ":80", refused},
		{"ping " + website, "error: operation not permitted"},
		{"listen :8080", "listening"},
	} {
		r.check(t, g)
	}
	wantCall(t, "tcp", ns.Address.String()+":8080", "saw 192.0.0.1")
}
