package network_test

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

type outside struct{ index int }

// netlinkUplink is the router's interface towards the host, for a thread that is behind it.
func netlinkUplink() (outside, error) {
	link, err := netlink.LinkByName("uplink")
	if err != nil {
		return outside{}, err
	}
	return outside{link.Attrs().Index}, nil
}

// routeTo sends what is for the address to the host.
func (o outside) routeTo(addr netip.Addr) error {
	return netlink.RouteReplace(&netlink.Route{LinkIndex: o.index, Dst: netlink.NewIPNet(addr.AsSlice()), Gw: net.ParseIP(hostAddress)})
}
