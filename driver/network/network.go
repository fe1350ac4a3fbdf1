// Package network gives sandboxes a network of their own: namespaces made ahead, whose way out is a policy that the guest
// cannot change.
//
// Each namespace has one interface, a veth whose other end is the host's. Inside, all namespaces are the same: the same
// address, the same gateway, the same hardware addresses, so that a guest frozen in one and thawed in another finds what it
// left. The host tells them apart by addresses of its own: rules of nftables put such an address in place of the guest's on
// each packet that comes in, and the guest's back on each that goes out, before and after everything else of the host sees
// the packet. A guest therefore cannot pretend to be another one, and without these rules nothing it sends is routable.
//
// Policy is enforced in the same table, by the host's end of the veth. What the pool knows is in files and in the kernel: it
// can be killed at any time, and the next one finds what is in use.
package network

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Defaults of Config.
const (
	DefaultName  = "freshet"
	DefaultReady = 8
	// DefaultRange is set aside for measuring networks (RFC 2544): on real ones nobody has it.
	DefaultRange = "198.18.0.0/16"
)

const (
	// guestLink is the interface's name in the namespace.
	guestLink = "eth0"
	maxReady  = 1024
	minMTU    = 576
	maxMTU    = 65535
)

// Config is what the node's operator decides.
type Config struct {
	// Dir is a directory of the pool's own, for the namespaces and for what is in use.
	Dir string
	// Name is the table's of nftables and begins the names of the host's interfaces, as in freshet-17: 1 to 8 lower-case
	// letters and digits, starting with a letter. Pools of one host differ in it. Default DefaultName.
	Name string
	// Range is where the host's addresses for sandboxes are from, IPv4, /8 to /28. It is seen on this host alone; it must not
	// overlap with a network the host reaches. Pools of one host differ in it. Default DefaultRange.
	Range netip.Prefix
	// Ready is how many namespaces wait to be taken, 1 to 1024. Default DefaultReady.
	Ready int
	// MTU of the interfaces, 576 to 65535. Default: that of the interface that the host's default route leaves by, or 1500.
	MTU int
	// Deny is what no sandbox reaches, whatever its function's allow list says: the cluster's own services. The host itself,
	// other sandboxes, loopback, link-local, multicast and the clouds' metadata services are always denied.
	Deny []Destination
	// Private is what a sandbox reaches only when its function's allow list names it. Nil means DefaultPrivate; an empty list
	// opens everything that is not denied.
	Private []netip.Prefix
	// Resolvers are the DNS servers that guests are told of and may ask at port 53, also where they are otherwise denied.
	// Nil means those of the host that are not on its loopback; an empty list means none.
	Resolvers []netip.Addr
}

// Namespace is a network namespace in use by a task.
type Namespace struct {
	// Path is the namespace's file, for the OCI spec.
	Path string
	// Address is where the host reaches the sandbox. The guest does not know it: it sees Guest.
	Address netip.Addr
	// Resolvers are the DNS servers that the guest can reach, for its resolv.conf.
	Resolvers []netip.Addr
}

// Gateway is the host's address as each guest sees it.
func Gateway() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 0, 1}) }

// Guest is the address that each guest sees as its own. It is from a range for addresses that are translated at the host's
// edge (RFC 7335), so that it hides nothing that a guest might want to reach.
func Guest() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 0, 2}) }

// DefaultPrivate are the networks that are not the internet.
func DefaultPrivate() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("198.18.0.0/15"),
	}
}

// never are the destinations that are always denied, beside the pool's own range and the host's addresses.
func never() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/3"), // multicast, and reserved
		netip.MustParsePrefix("192.0.0.0/30"),
		netip.MustParsePrefix("100.100.100.200/32"), // metadata of Alibaba's cloud
		netip.MustParsePrefix("168.63.129.16/32"),   // of Azure's
	}
}

// compiledName is immutable; compiling it once saves the cost at each check.
var compiledName = regexp.MustCompile(`^[a-z][a-z0-9]{0,7}$`)

// withDefaults fills what is not set and tells what is wrong.
func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.Ready == 0 {
		c.Ready = DefaultReady
	}
	if c.Range == (netip.Prefix{}) {
		c.Range = netip.MustParsePrefix(DefaultRange)
	}
	if c.Private == nil {
		c.Private = DefaultPrivate()
	}
	return c, c.validate()
}

func (c Config) validate() error {
	fail := func(field string, value any, mend string) error {
		return spec.FieldError{Field: field, Value: fmt.Sprint(value), Mend: mend}
	}
	switch {
	case c.Dir == "":
		return fail("network.dir", c.Dir, "name a directory for the pool's own use")
	case !compiledName.MatchString(c.Name):
		return fail("network.name", c.Name, "use 1 to 8 lower-case letters and digits, starting with a letter")
	case c.Ready < 1 || c.Ready > maxReady:
		return fail("network.ready", c.Ready, fmt.Sprintf("use 1 to %d", maxReady))
	case c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU):
		return fail("network.mtu", c.MTU, fmt.Sprintf("use %d to %d, or 0 for the host's", minMTU, maxMTU))
	case !c.Range.IsValid() || !c.Range.Addr().Is4() || c.Range.Bits() < 8 || c.Range.Bits() > 28 || c.Range != c.Range.Masked():
		return fail("network.range", c.Range, "use an IPv4 network of /8 to /28, such as "+DefaultRange)
	}
	for i, prefix := range never() {
		if prefix.Overlaps(c.Range) {
			return fail("network.range", c.Range, "use addresses outside "+never()[i].String())
		}
	}
	for i, d := range c.Deny {
		if !d.Prefix.IsValid() || !d.Prefix.Addr().Is4() {
			return fail(fmt.Sprintf("network.deny[%d]", i), d, "use an IPv4 network: sandboxes have no IPv6")
		}
	}
	for i, prefix := range c.Private {
		if !prefix.IsValid() || !prefix.Addr().Is4() {
			return fail(fmt.Sprintf("network.private[%d]", i), prefix, "use an IPv4 network: sandboxes have no IPv6")
		}
	}
	if i := slices.IndexFunc(c.Resolvers, func(a netip.Addr) bool { return !a.Is4() || a.IsLoopback() }); i >= 0 {
		return fail(fmt.Sprintf("network.resolvers[%d]", i), c.Resolvers[i], "use an IPv4 address that is not on the host's loopback, which sandboxes cannot reach")
	}
	return nil
}

// always are all the destinations that no policy opens.
func (c Config) always() []Destination {
	all := []Destination{{Prefix: c.Range}}
	for _, prefix := range never() {
		all = append(all, Destination{Prefix: prefix})
	}
	return append(all, c.Deny...)
}
