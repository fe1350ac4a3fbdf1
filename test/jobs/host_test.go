// Package jobs tests that jobs written for Nomad's docker driver run with only the driver's name changed: in a real Nomad agent, on
// images made of Debian packages, through the commands that people type. The jobs are the files beside it.
package jobs

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostEnv names the tests' directory, and says that the process runs in a host of its own already: a network namespace, which holds
// what Nomad and the driver make, and a mount namespace.
const hostEnv = "FRESHET_TEST_JOBS_DIR"

const (
	// hostAddress is the node's, by which everybody reaches its tasks; outsideAddress is another machine's.
	hostAddress    = "203.0.113.1"
	outsideAddress = "203.0.113.2"
	uplink         = "uplink"
)

func TestMain(m *testing.M) {
	var code int
	var err error
	if dir := os.Getenv(hostEnv); dir == "" {
		code, err = rerun()
	} else {
		code, err = run(m, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// rerun runs this program again in namespaces of its own, and removes what it left, however it ended.
func rerun() (code int, err error) {
	dir, err := os.MkdirTemp("", "freshet-jobs-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, clearGroup(driverGroup), clearGroup(nomadGroup), os.RemoveAll(dir)) }()
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.Env = append(os.Environ(), hostEnv+"="+dir)
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // its death would be the parent's to the child
	err = again.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("run the tests in namespaces of their own (needs root): %w", err)
	}
	return 0, nil
}

// run makes the host, the images and the agent, and runs the tests.
func run(m *testing.M, dir string) (code int, err error) {
	runtime.LockOSThread() // the agent ends with it
	end, err := makeHost()
	if err != nil {
		return 1, fmt.Errorf("make a host: %w", err)
	}
	defer func() { err = errors.Join(err, end()) }()
	registry, err := startRegistry()
	if err != nil {
		return 1, fmt.Errorf("start a registry: %w", err)
	}
	defer registry.Close()
	if err := makeImages(dir); err != nil {
		return 1, fmt.Errorf("make images: %w", err)
	}
	node = &agent{dir: dir}
	defer func() {
		err = errors.Join(err, node.stop())
		if code != 0 || err != nil {
			node.tellLogs()
		}
	}()
	if err := node.start(); err != nil {
		return 1, fmt.Errorf("start a nomad agent: %w", err)
	}
	return m.Run(), nil
}

// makeHost joins the host to another machine. What programs keep in /run and in CNI's directory is the host's own too.
func makeHost() (end func() error, err error) {
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return nil, fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := onThread(makeOutside); err != nil {
		return nil, err
	}
	return outside.Close, nil
}

// outside is the network namespace of another machine.
var outside *os.File

func makeOutside() error {
	here, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer here.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	if outside, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	there, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer there.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = uplink
	err = here.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: uplink, PeerNamespace: netlink.NsFd(int(outside.Fd()))})
	if err != nil {
		return err
	}
	for _, side := range []struct {
		handle  *netlink.Handle
		address string
	}{{here, hostAddress}, {there, outsideAddress}} {
		if err := errors.Join(raise(side.handle, "lo", ""), raise(side.handle, uplink, side.address+"/24")); err != nil {
			return err
		}
	}
	link, err := here.LinkByName(uplink)
	if err != nil {
		return err
	}
	return here.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(outsideAddress)})
}

func raise(h *netlink.Handle, name, address string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if address != "" {
		parsed, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := h.AddrAdd(link, parsed); err != nil {
			return err
		}
	}
	return h.LinkSetUp(link)
}

// onThread runs the function on a thread that ends with it.
func onThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- do()
	}()
	return <-done
}

// fromOutside runs the function on the other machine.
func fromOutside(do func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(outside.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return do()
	})
}

// setting is what `make test` finds out for the tests.
func setting(name string) (string, error) {
	value := os.Getenv(name)
	if value == "" {
		return "", fmt.Errorf("%s is not set: use `make test`", name)
	}
	return filepath.Abs(value)
}
