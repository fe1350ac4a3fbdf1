package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Destination is where packets may go, or may not.
type Destination struct {
	Prefix netip.Prefix `json:"prefix"`
	// Port of TCP and UDP; 0 means all ports, and ICMP.
	Port uint16 `json:"port,omitempty"`
}

// ParseDestination reads a CIDR with an optional port, such as "10.0.0.0/8:443", or an address, such as "10.0.0.1:4222".
func ParseDestination(text string) (Destination, error) {
	network, port := text, ""
	if _, err := parsePrefix(network); err != nil {
		at := strings.LastIndexByte(text, ':')
		if at < 0 {
			return Destination{}, err
		}
		network, port = text[:at], text[at+1:]
		network = strings.TrimSuffix(strings.TrimPrefix(network, "["), "]")
	}
	prefix, err := parsePrefix(network)
	if err != nil {
		return Destination{}, err
	}
	if port == "" && network != text {
		return Destination{}, fmt.Errorf("read destination %q: port missing after ':'", text)
	}
	d := Destination{Prefix: prefix.Masked()}
	if port == "" {
		return d, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return Destination{}, fmt.Errorf("read destination %q: port %q: use 1 to 65535", text, port)
	}
	d.Port = uint16(number)
	return d, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("read destination %q: use a CIDR or an address, with an optional port", text)
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read destination %q: use a CIDR or an address, with an optional port", text)
	}
	return prefix, nil
}

// String is the form that ParseDestination reads.
func (d Destination) String() string {
	if d.Port == 0 {
		return d.Prefix.String()
	}
	if d.Prefix.Addr().Is4() {
		return fmt.Sprintf("%s:%d", d.Prefix, d.Port)
	}
	return fmt.Sprintf("[%s]:%d", d.Prefix, d.Port)
}

// covers tells whether the destination includes the address's port.
func (d Destination) covers(addr netip.Addr, port uint16) bool {
	return d.Prefix.Contains(addr) && (d.Port == 0 || d.Port == port)
}

// Policy is what a sandbox may reach. The zero value reaches nothing; it still answers those who call it.
type Policy struct {
	// Egress opens the way out to everything that is neither denied nor private.
	Egress bool `json:"egress,omitempty"`
	// Allow, unless empty, limits egress to these destinations, private ones among them. What is denied stays so. Resolvers
	// are reached only when the list names them: a resolver is a way out too.
	Allow []Destination `json:"allow,omitempty"`
}

// PolicyFor is the policy of a function's spec.
func PolicyFor(n spec.Network) (Policy, error) {
	policy := Policy{Egress: n.Egress}
	for i, text := range n.Allow {
		field := fmt.Sprintf("network.allow[%d]", i)
		d, err := ParseDestination(text)
		if err != nil {
			return Policy{}, spec.FieldError{Field: field, Value: text, Mend: "use a CIDR with an optional port, such as \"10.0.0.0/8:443\""}
		}
		if !d.Prefix.Addr().Is4() {
			return Policy{}, spec.FieldError{Field: field, Value: text, Mend: "name IPv4 destinations: sandboxes have no IPv6"}
		}
		policy.Allow = append(policy.Allow, d)
	}
	if len(policy.Allow) > 0 && !policy.Egress {
		return Policy{}, spec.FieldError{Field: "network.allow", Value: strings.Join(n.Allow, ","), Mend: "set network.egress = true too, or remove the list"}
	}
	return policy, nil
}

func (p Policy) equal(q Policy) bool { return p.Egress == q.Egress && slices.Equal(p.Allow, q.Allow) }

// resolvers are those of the given DNS servers that the policy lets the guest ask.
func (p Policy) resolvers(servers []netip.Addr) []netip.Addr {
	if !p.Egress {
		return nil
	}
	if len(p.Allow) == 0 {
		return servers
	}
	var reached []netip.Addr
	for _, server := range servers {
		if slices.ContainsFunc(p.Allow, func(d Destination) bool { return d.covers(server, dnsPort) }) {
			reached = append(reached, server)
		}
	}
	return reached
}
