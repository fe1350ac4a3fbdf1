// Package world is what the tests of hostile guests and of handlers run in: a network namespace of their own with an outside that
// answers, a whole cluster within it, and images for its tasks.
package world

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses of the world. All of them exist, and answer at port 80 with their own address and whom they saw, so that what a guest
// does not reach, it was kept from.
const (
	// Host is the node's own address towards the outside.
	Host = "203.0.113.1"
	// Website is what egress is for.
	Website = "198.51.100.7"
	// Metadata is where clouds tell a machine its secrets.
	Metadata = "169.254.169.254"
	// Private is somebody's own network.
	Private = "10.1.2.3"

	router = "203.0.113.2"
)

// insideEnv marks the process that runs in the namespace.
const insideEnv = "FRESHET_TEST_INSIDE"

// Inside runs the tests again in a network namespace of their own, which ends with them; there it calls run. It returns the exit
// code.
func Inside(run func() int) int {
	if os.Getenv(insideEnv) == "" {
		return again()
	}
	outside, err := open()
	if err != nil {
		fmt.Fprintln(os.Stderr, "make the world around the node:", err)
		return 1
	}
	defer func() { _ = outside.Close() }() // it ends with the process
	return run()
}

func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a namespace of their own (needs root):", err)
		return 1
	}
	return 0
}

type closers []io.Closer

func (c closers) Close() error {
	var err error
	for _, one := range c {
		err = errors.Join(err, one.Close())
	}
	return err
}

// open joins the node to a router, behind which are all the addresses above.
func open() (io.Closer, error) {
	type made struct {
		all closers
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which changes its namespace, ends with the goroutine
		var m made
		m.err = build(&m.all)
		done <- m
	}()
	m := <-done
	if m.err != nil {
		return nil, errors.Join(m.err, m.all.Close())
	}
	return m.all, nil
}

func build(all *closers) error {
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer node.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	away, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	*all = append(*all, away)
	beyond, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer beyond.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	if err := node.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "uplink", PeerNamespace: netlink.NsFd(int(away.Fd()))}); err != nil {
		return err
	}
	behind := []string{Website, Metadata, Private}
	err = errors.Join(
		raise(node, "lo"), raise(node, "uplink", Host+"/24"),
		raise(beyond, "lo", behind[0]+"/32", behind[1]+"/32", behind[2]+"/32"), raise(beyond, "uplink", router+"/24"))
	if err != nil {
		return err
	}
	uplink, err := node.LinkByName("uplink")
	if err != nil {
		return err
	}
	if err := node.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Gw: net.ParseIP(router)}); err != nil {
		return err
	}
	for _, address := range behind {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, "80"))
		if err != nil {
			return err
		}
		*all = append(*all, listener)
		go answer(listener) // ends with its listener
	}
	return nil
}

// answer says whom it is and whom it saw, then gives each line back.
func answer(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() { // ends with its connection
			defer func() { _ = conn.Close() }()
			if _, err := fmt.Fprintf(conn, "%s saw %s\n", conn.LocalAddr(), conn.RemoteAddr()); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}()
	}
}

func raise(links *netlink.Handle, name string, addresses ...string) error {
	link, err := links.LinkByName(name)
	if err != nil {
		return err
	}
	for _, text := range addresses {
		address, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := links.AddrAdd(link, address); err != nil {
			return fmt.Errorf("give %s to %s: %w", strings.TrimSpace(text), name, err)
		}
	}
	return links.LinkSetUp(link)
}
