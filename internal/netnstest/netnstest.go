// Package netnstest gives tests networks of their own: the machine's is never touched. A test's process runs again in namespaces of
// its own, and joins others to them, in which it runs functions and programs.
package netnstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideEnv marks the process that runs in namespaces of its own.
const insideEnv = "FRESHET_TEST_INSIDE"

// Inside runs the tests again in a network and a mount namespace of their own, where it calls run, and returns the exit code. What was
// made there ends with them, whatever happens.
func Inside(run func() int) int {
	if os.Getenv(insideEnv) != "" { //nolint:forbidigo // a test's own setting
		return run()
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.Env = append(os.Environ(), insideEnv+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // its death would be the parent's to the child
	defer runtime.UnlockOSThread()
	err := again.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own (needs root):", err)
		return 1
	}
	return 0
}

// Namespace is a network namespace beside the caller's own. Close it.
type Namespace struct{ file *os.File }

// New makes a namespace with nothing but a loopback interface that is up.
func New() (*Namespace, error) {
	n := &Namespace{}
	err := OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		if n.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return Raise("lo")
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", errors.Join(err, n.Close()))
	}
	return n, nil
}

// Close lets the namespace go; it ends with the last process in it.
func (n *Namespace) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// Do runs the function in the namespace: its sockets and interfaces are those of the namespace.
func (n *Namespace) Do(do func() error) error {
	return OnThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return do()
	})
}

// OnThread runs the function on a thread that ends with it: what it does to its namespaces is nobody else's, and a process that it
// starts with a signal for its parent's death lives as long as the function.
func OnThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: a thread that changed its namespace is of no use to others
		done <- do()
	}()
	return <-done
}

// Join makes a pair of interfaces: one here, another in the namespace, which is up there and has the addresses (with prefixes).
func (n *Namespace) Join(here, there string, addresses ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = here
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: there, PeerNamespace: netlink.NsFd(int(n.file.Fd()))}); err != nil {
		return fmt.Errorf("join network namespace: %w", err)
	}
	return n.Do(func() error { return Raise(there, addresses...) })
}

// Uplink is the interface by which Outside is reached, on both sides.
const Uplink = "uplink"

// Outside makes what is beyond this network: a namespace that everything goes to which is for elsewhere. It and this network have the
// addresses (with prefixes) on the uplink between them, and behind it are more.
func Outside(here, there string, behind ...string) (*Namespace, error) {
	gateway, _, err := net.ParseCIDR(there)
	if err != nil {
		return nil, fmt.Errorf("make network namespace outside: %w", err)
	}
	n, err := New()
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return n.Join(Uplink, Uplink, there) },
		func() error { return n.Do(func() error { return Raise("lo", behind...) }) },
		func() error { return errors.Join(Raise("lo"), Raise(Uplink, here)) },
		func() error { return Gateway(Uplink, gateway.String()) },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// Raise gives an interface addresses (with prefixes) and sets it up.
func Raise(name string, addresses ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	for _, text := range addresses {
		address, err := netlink.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("give %s to %s: %w", text, name, err)
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("give %s to %s: %w", text, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// Gateway sends what is for elsewhere to a neighbour behind the interface.
func Gateway(name, neighbour string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(neighbour)}); err != nil {
		return fmt.Errorf("route by %s: %w", neighbour, err)
	}
	return nil
}
