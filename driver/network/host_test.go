package network_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/network"
	"github.com/freshet-dev/freshet/internal/netnstest"
)

// The whole test runs in a host of its own: a network namespace and a mount namespace. cniEnv says where the plugins of CNI are, and
// holderEnv that the process only opens a pool, takes namespaces, and waits to be killed.
const (
	cniEnv    = "FRESHET_TEST_CNI"
	holderEnv = "FRESHET_TEST_HOLDER"
)

// Addresses beyond the host.
const (
	hostAddress = "203.0.113.1"
	router      = "203.0.113.2"
	website     = "198.51.100.7"
	resolver    = "10.0.0.53" // a private one
	database    = "10.1.2.3"
	nats        = "10.1.2.4" // the cluster's, denied
	metadata    = "169.254.169.254"
	azure       = "168.63.129.16"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(holderEnv) != "":
		hold(os.Getenv(holderEnv))
	case slices.Contains(os.Args, "-test.fuzzworker"):
		os.Exit(m.Run()) // started by one that is in its host already, and needs none
	case os.Getenv(cniEnv) == "":
		os.Exit(withCNI(m))
	}
	os.Exit(netnstest.Inside(func() int { return runInHost(m) }))
}

// withCNI gets what needs a network, and runs the tests in their host.
func withCNI(m *testing.M) int {
	plugins, err := os.MkdirTemp("", "freshet-network-cni")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(plugins)
	if err := errors.Join(buildCNI(plugins), os.Setenv(cniEnv, plugins)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return netnstest.Inside(func() int { return runInHost(m) })
}

func runInHost(m *testing.M) int {
	// The host answers each refused packet, however many a test sends.
	if err := os.WriteFile("/proc/sys/net/ipv4/icmp_ratelimit", []byte("0"), 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	world, err := makeWorld()
	if err != nil {
		fmt.Fprintln(os.Stderr, "make the world around the host:", err)
		return 1
	}
	defer world.Close()
	code := m.Run()
	if dir, err := rootfs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	return code
}

// makeWorld joins the host to a router, behind which are all the addresses above, each with servers that say whom they saw.
func makeWorld() (io.Closer, error) {
	behind := []string{website, resolver, database, nats, metadata, azure}
	prefixes := make([]string, len(behind))
	for i, address := range behind {
		prefixes[i] = address + "/32"
	}
	var err error
	if away, err = netnstest.Outside(hostAddress+"/24", router+"/24", prefixes...); err != nil {
		return nil, err
	}
	all := closers{away}
	err = errors.Join(narrow(), away.Do(narrow), away.Do(func() error {
		for _, address := range behind {
			for _, port := range []string{"53", "80", "443", "4222"} {
				server, err := serve(address + ":" + port)
				if err != nil {
					return err
				}
				all = append(all, server)
			}
		}
		return nil
	}))
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, nil
}

// narrow gives the uplink an MTU that is not the usual one.
func narrow() error {
	link, err := netlink.LinkByName(netnstest.Uplink)
	if err != nil {
		return err
	}
	return netlink.LinkSetMTU(link, 1400)
}

// away is the namespace behind the router, for tests that come from outside.
var away *netnstest.Namespace

type closers []io.Closer

func (c closers) Close() error {
	var err error
	for _, one := range c {
		err = errors.Join(err, one.Close())
	}
	return err
}

// beyond runs the function in the namespace behind the router.
func beyond(t testing.TB, do func() error) {
	t.Helper()
	if err := away.Do(do); err != nil {
		t.Fatal(err)
	}
}

// server answers on TCP and UDP with the address that it saw.
type server struct {
	tcp  net.Listener
	udp  net.PacketConn
	done sync.WaitGroup
}

func serve(address string) (*server, error) {
	tcp, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenPacket("udp4", address)
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	s := &server{tcp: tcp, udp: udp}
	s.done.Go(s.serveTCP)
	s.done.Go(s.serveUDP)
	return s, nil
}

func (s *server) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.done.Go(func() {
			defer conn.Close()
			host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
			for {
				if _, err := in.ReadString('\n'); err != nil {
					return
				}
				fmt.Fprintln(out, "saw", host)
				if in.Buffered() == 0 && out.Flush() != nil {
					return
				}
			}
		})
	}
}

func (s *server) serveUDP() {
	buffer := make([]byte, 1500)
	for {
		_, from, err := s.udp.ReadFrom(buffer)
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(from.String())
		_, _ = s.udp.WriteTo([]byte("saw "+host+"\n"), from)
	}
}

func (s *server) Close() error { return errors.Join(s.tcp.Close(), s.udp.Close()) }

func testLog(t testing.TB) zerolog.Logger { return zerolog.New(zerolog.NewTestWriter(t)) }

func testConfig(dir string) network.Config {
	return network.Config{
		Dir: dir, Ready: 2,
		Deny:      []network.Destination{{Prefix: netip.MustParsePrefix(nats + "/32")}, {Prefix: netip.MustParsePrefix(website + "/32"), Port: 4222}},
		Resolvers: []netip.Addr{netip.MustParseAddr(resolver)},
	}
}

// open opens a pool that ends, with all that is in use, at the test's end.
func open(t testing.TB, cfg network.Config) *network.Pool {
	t.Helper()
	pool, err := network.Open(t.Context(), cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, pool) })
	return pool
}

func end(t testing.TB, pool *network.Pool) {
	t.Helper()
	if err := errors.Join(ignoreClosed(pool.Sweep(nil)), pool.Close()); err != nil {
		t.Error(err)
	}
}

func ignoreClosed(err error) error {
	if err != nil && strings.Contains(err.Error(), "closed") {
		return nil
	}
	return err
}

func take(t testing.TB, pool *network.Pool, task string, policy network.Policy) network.Namespace {
	t.Helper()
	ns, err := pool.Take(t.Context(), task, policy)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func destination(t testing.TB, text string) network.Destination {
	t.Helper()
	d, err := network.ParseDestination(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// rootfs is the guest's root, built once.
var rootfs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "freshet-network-guest")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "guest"), "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build guest: %w: %s", err, out)
	}
	for _, name := range []string{"proc", "dev", "sys", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return "", err
		}
	}
	return dir, nil
})

// guest is a sandbox of the pinned runsc, with every right inside that matters to the network.
type guest struct {
	t     testing.TB
	id    string
	state string
	in    io.WriteCloser
	out   *bufio.Reader
	ended func() // waits for its end
}

func runsc(t testing.TB, state string, args ...string) *exec.Cmd {
	t.Helper()
	program := os.Getenv("FRESHET_RUNSC")
	if program == "" {
		t.Fatal("runsc is needed: put the path of the pinned one into FRESHET_RUNSC (make tools prints it)")
	}
	flags := []string{
		"--root", state, "--network", "sandbox", "--net-raw", "--ignore-cgroups", "--host-settings", "ignore",
		"--sidecar-usage-policy", "LEGACY_DEPRECATED_SLOW_EMBEDDED_FALLBACK",
	}
	return exec.Command(program, append(flags, args...)...)
}

// start starts a guest in the namespace; with a verb other than run, as restore has, it starts from elsewhere.
func start(t testing.TB, id, namespace string, verb ...string) *guest {
	t.Helper()
	root, err := rootfs()
	if err != nil {
		t.Fatal(err)
	}
	rights := []string{"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"}
	spec := specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{Args: []string{"/guest"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{Bounding: rights, Effective: rights, Permitted: rights, Inheritable: rights}},
		Root:    &specs.Root{Path: root, Readonly: true},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace},
			{Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace},
			{Type: specs.MountNamespace},
			{Type: specs.NetworkNamespace, Path: namespace},
		}},
	}
	bundle := t.TempDir()
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if len(verb) == 0 {
		verb = []string{"run"}
	}
	g := &guest{t: t, id: id, state: t.TempDir()}
	cmd := runsc(t, g.state, append(verb, "--bundle", bundle, id)...)
	cmd.Stderr = os.Stderr
	if g.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.ended = sync.OnceFunc(func() { _ = cmd.Wait() }) // killed, it has no good exit
	t.Cleanup(func() {
		_ = g.in.Close()
		_ = runsc(t, g.state, "kill", id, "KILL").Run() // it may have ended
		g.ended()
		_ = runsc(t, g.state, "delete", "--force", id).Run()
		_ = unix.Unmount(filepath.Join(g.state, "null-netns"), unix.MNT_DETACH) // runsc's own
	})
	return g
}

// do has the guest do what the line says and returns its answer.
func (g *guest) do(line string) string {
	g.t.Helper()
	if _, err := fmt.Fprintln(g.in, line); err != nil {
		g.t.Fatalf("%s: %v", line, err)
	}
	answer, err := g.out.ReadString('\n')
	if err != nil {
		g.t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSpace(answer)
}

// call opens a connection from the host, or from wherever the thread is, and returns the answer.
func call(ctx context.Context, protocol, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, protocol, address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return "", err
	}
	buffer := make([]byte, 1500)
	n, err := conn.Read(buffer)
	return strings.TrimSpace(string(buffer[:n])), err
}
