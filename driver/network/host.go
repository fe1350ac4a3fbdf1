package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	defaultMTU = 1500
	// claimPatience is how long a pool waits for the one before it to end, claimBeat how often it looks.
	claimPatience = 5 * time.Second
	claimBeat     = 50 * time.Millisecond
)

// claim keeps the name for this process: its table and interfaces are nobody else's. The kernel lets go of it when the process
// ends, however it does.
func claim(ctx context.Context, name string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, claimPatience)
	defer cancel()
	ticker := time.NewTicker(claimBeat)
	defer ticker.Stop()
	for {
		// An abstract socket's name is the network namespace's, as the table and the interfaces are.
		var config net.ListenConfig
		held, err := config.Listen(ctx, "unix", "@freshet-network-"+name)
		if err == nil {
			return held, nil
		}
		select {
		case <-ctx.Done():
			mend := "another process has a pool of this name on this host: set network.name and network.range to others, or stop it"
			return nil, fmt.Errorf("claim name: %w: %w", spec.FieldError{Field: "network.name", Value: name, Mend: mend}, err)
		case <-ticker.C:
		}
	}
}

// forward lets the host pass packets on.
func forward() (changed bool, err error) {
	const setting = "/proc/sys/net/ipv4/ip_forward"
	now, err := os.ReadFile(setting)
	if err != nil {
		return false, fmt.Errorf("read ip_forward: %w", err)
	}
	if strings.TrimSpace(string(now)) == "1" {
		return false, nil
	}
	return true, set("ipv4/ip_forward", "1")
}

// checkRange tells when the host reaches something else by the range.
func (p *Pool) checkRange() error {
	routes, err := p.host.RouteListFiltered(unix.AF_INET, &netlink.Route{}, 0)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		ones, _ := route.Dst.Mask.Size()
		addr, ok := netip.AddrFromSlice(route.Dst.IP)
		if network := netip.PrefixFrom(addr, ones); !ok || ones == 0 || !network.Overlaps(p.cfg.Range) {
			continue
		}
		link, err := p.host.LinkByIndex(route.LinkIndex)
		if err == nil && strings.HasPrefix(link.Attrs().Name, p.rules.prefix) {
			continue
		}
		return spec.FieldError{Field: "network.range", Value: p.cfg.Range.String(), Mend: fmt.Sprintf("it overlaps with the host's route to %s: choose another private range", route.Dst)}
	}
	return nil
}

// defaultMTUOf is the MTU of the interface that the host's default route leaves by.
func defaultMTUOf(host *netlink.Handle) (int, error) {
	routes, err := host.RouteList(nil, unix.AF_INET)
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		if route.Dst != nil && !route.Dst.IP.IsUnspecified() {
			continue
		}
		link, err := host.LinkByIndex(route.LinkIndex)
		if err != nil {
			continue // gone meanwhile
		}
		if mtu := link.Attrs().MTU; mtu >= minMTU && mtu <= maxMTU {
			return mtu, nil
		}
	}
	return defaultMTU, nil
}

// hostResolvers reads the DNS servers of the host that a guest can be let to. A host whose own resolver listens on loopback
// alone keeps the servers behind it in systemd's file.
func hostResolvers() ([]netip.Addr, error) {
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read resolvers: %w", err)
		}
		if servers := ParseResolvers(string(data)); len(servers) > 0 {
			return servers, nil
		}
	}
	return nil, nil
}

// ParseResolvers reads the IPv4 name servers of a resolv.conf that are not on loopback, in their order.
func ParseResolvers(text string) []netip.Addr {
	var servers []netip.Addr
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil || !addr.Is4() || addr.IsLoopback() || addr.IsUnspecified() || slices.Contains(servers, addr) {
			continue
		}
		servers = append(servers, addr)
	}
	return servers
}
