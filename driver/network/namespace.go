package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is a namespace and its interface on the host.
type space struct {
	number int        // within the range: the address, and the names below
	addr   netip.Addr // the host's for it
	link   string     // the host's end
	path   string     // the namespace's file
}

// The hardware addresses of both ends, the same everywhere: a thawed guest's table of neighbours stays right.
func hostHardware() net.HardwareAddr  { return net.HardwareAddr{2, 0, 192, 0, 0, 1} }
func guestHardware() net.HardwareAddr { return net.HardwareAddr{2, 0, 192, 0, 0, 2} }

// onOwnThread runs the function on a thread of its own, which ends with it: it may change the thread's namespaces.
func onOwnThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- do()
	}()
	return <-done
}

// make makes the namespace, and both ends of its interface.
func (s space) make(host *netlink.Handle, mtu int) error {
	file, err := os.OpenFile(s.path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make namespace: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("make namespace: %w", err)
	}
	if err := onOwnThread(s.unshare); err != nil {
		return errors.Join(err, s.remove(host))
	}
	if err := s.connect(host, mtu); err != nil {
		return errors.Join(err, s.remove(host))
	}
	if err := Prepare(s.path); err != nil {
		return errors.Join(err, s.remove(host))
	}
	return nil
}

// unshare gives the thread a new namespace and keeps it in the file.
func (s space) unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make namespace: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", s.path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	// Before there is an interface, which would get an address by it.
	return set("ipv6/conf/default/disable_ipv6", "1")
}

// connect makes the interface and sets up the host's end.
func (s space) connect(host *netlink.Handle, mtu int) error {
	guest, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer func() { _ = guest.Close() }() // nothing is written to it
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = s.link, mtu, hostHardware()
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: guestLink, PeerMTU: uint32(mtu), PeerHardwareAddr: guestHardware(),
		PeerNamespace: netlink.NsFd(int(guest.Fd())),
	}
	if err := host.LinkAdd(veth); err != nil {
		return fmt.Errorf("make interface %s: %w", s.link, err)
	}
	link, err := host.LinkByName(s.link)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", s.link, err)
	}
	for _, setting := range []struct{ name, value string }{
		{"ipv6/conf/" + s.link + "/disable_ipv6", "1"},
		// Without the table's rules a guest's packets come from an address that does not lead back here: the kernel drops them.
		{"ipv4/conf/" + s.link + "/rp_filter", "1"},
		{"ipv4/conf/" + s.link + "/accept_redirects", "0"},
		{"ipv4/conf/" + s.link + "/send_redirects", "0"},
		{"ipv4/conf/" + s.link + "/forwarding", "1"},
	} {
		if err := set(setting.name, setting.value); err != nil {
			return err
		}
	}
	guestAddr := &net.IPNet{IP: Guest().AsSlice(), Mask: net.CIDRMask(32, 32)}
	gateway := &net.IPNet{IP: Gateway().AsSlice(), Mask: net.CIDRMask(32, 32)}
	own := &net.IPNet{IP: s.addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
	index := link.Attrs().Index
	for _, step := range []struct {
		what string
		do   func() error
	}{
		// Nobody is asked who has an address: there are two ends, and both are known.
		{"turn ARP off", func() error { return host.LinkSetARPOff(link) }},
		{"set address", func() error { return host.AddrAdd(link, &netlink.Addr{IPNet: gateway}) }},
		{"set up", func() error { return host.LinkSetUp(link) }},
		{"set neighbour", func() error {
			return host.NeighSet(&netlink.Neigh{LinkIndex: index, IP: guestAddr.IP, HardwareAddr: guestHardware(), State: netlink.NUD_PERMANENT})
		}},
		{"set route", func() error {
			return host.RouteAdd(&netlink.Route{LinkIndex: index, Dst: own, Src: gateway.IP, Scope: netlink.SCOPE_LINK})
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %s: %w", s.link, step.what, err)
		}
	}
	return nil
}

// set writes a setting of the kernel's network. One of an IPv6 that the kernel does not have need not be set.
func set(name, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(name, "ipv6/") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set %s to %s: %w", name, value, err)
	}
	return nil
}

// address gives the interface in the calling thread's namespace the guest's address and its way out, where they are missing.
func address() error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	loopback, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	link, err := handle.LinkByName(guestLink)
	if err != nil {
		return fmt.Errorf("find %s: %w", guestLink, err)
	}
	index := link.Attrs().Index
	guest := &net.IPNet{IP: Guest().AsSlice(), Mask: net.CIDRMask(30, 32)}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"set loopback up", func() error { return handle.LinkSetUp(loopback) }},
		{"set up", func() error { return handle.LinkSetUp(link) }},
		{"set address", func() error { return handle.AddrReplace(link, &netlink.Addr{IPNet: guest}) }},
		{"set neighbour", func() error {
			return handle.NeighSet(&netlink.Neigh{LinkIndex: index, IP: Gateway().AsSlice(), HardwareAddr: hostHardware(), State: netlink.NUD_PERMANENT})
		}},
		{"set route", func() error {
			return handle.RouteReplace(&netlink.Route{LinkIndex: index, Gw: Gateway().AsSlice()})
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %s: %w", guestLink, step.what, err)
		}
	}
	return nil
}

// Prepare makes a namespace of a pool ready for another sandbox. A sandbox takes the address of the interface away when it
// starts; so this is needed before a second one starts in the same namespace, as after a failed restore. The first must have
// ended. Any process may call it.
func Prepare(path string) error {
	err := onOwnThread(func() error {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // nothing is written to it
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter: %w", err)
		}
		return address()
	})
	if err != nil {
		return fmt.Errorf("prepare namespace %s: %w", path, err)
	}
	return nil
}

// whole tells whether namespace and interface are both there: after a reboot they are not.
func (s space) whole(host *netlink.Handle) bool {
	var stat unix.Statfs_t
	if err := unix.Statfs(s.path, &stat); err != nil || stat.Type != unix.NSFS_MAGIC {
		return false
	}
	_, err := host.LinkByName(s.link)
	return err == nil
}

// remove removes what there is of it. The interface goes first and takes its other end along, whoever holds the namespace.
func (s space) remove(host *netlink.Handle) error {
	var all []error
	link, err := host.LinkByName(s.link)
	if err == nil {
		err = host.LinkDel(link)
	}
	if missing := (netlink.LinkNotFoundError{}); err != nil && !errors.As(err, &missing) && !errors.Is(err, unix.ENODEV) {
		all = append(all, fmt.Errorf("remove interface %s: %w", s.link, err))
	}
	return errors.Join(append(all, unmount(s.path))...)
}

// unmount removes a namespace's file, mounted or not.
func unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount namespace: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove namespace: %w", err)
	}
	return nil
}

// flows are the connections of an address that the kernel tracks; it implements netlink's filter.
type flows struct{ addr net.IP }

// MatchConntrackFlow holds for the connections from and to the address.
func (f flows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return f.addr.Equal(flow.Forward.SrcIP) || f.addr.Equal(flow.Reverse.SrcIP)
}

// forget ends all connections of the address, so that who gets it next meets none of them.
func (s space) forget(host *netlink.Handle) error {
	if _, err := host.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flows{s.addr.AsSlice()}); err != nil {
		return fmt.Errorf("forget connections of %s: %w", s.addr, err)
	}
	return nil
}
