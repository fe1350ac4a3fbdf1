package network

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Port is a port of the host that leads to one of a sandbox.
type Port struct {
	// HostIP is the host's address; unset or 0.0.0.0 means all of them, loopback too.
	HostIP netip.Addr `json:"host_ip,omitzero"`
	// HostPort is the port there, Port the sandbox's.
	HostPort uint16 `json:"host_port"`
	Port     uint16 `json:"port"`
	// UDP instead of TCP.
	UDP bool `json:"udp,omitempty"`
}

func (p Port) host() netip.Addr {
	if !p.HostIP.IsValid() {
		return netip.IPv4Unspecified()
	}
	return p.HostIP
}

func (p Port) protocol() byte {
	if p.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// String is the form that people know: host's address and port, sandbox's port, protocol.
func (p Port) String() string {
	name := "tcp"
	if p.UDP {
		name = "udp"
	}
	return fmt.Sprintf("%s:%d->%d/%s", p.host(), p.HostPort, p.Port, name)
}

// same tells whether both take the same port of the host.
func (p Port) same(q Port) bool {
	return p.host() == q.host() && p.HostPort == q.HostPort && p.UDP == q.UDP
}

// reachesLoopback tells whether connections from the host's loopback come by this port.
func (p Port) reachesLoopback() bool { return p.host().IsUnspecified() || p.host().IsLoopback() }

func validatePorts(ports []Port) error {
	for i, p := range ports {
		fail := func(field string, value any, mend string) error {
			return spec.FieldError{Field: fmt.Sprintf("ports[%d].%s", i, field), Value: fmt.Sprint(value), Mend: mend}
		}
		switch {
		case !p.host().Is4():
			return fail("host_ip", p.HostIP, "use an IPv4 address of the host: sandboxes have no IPv6")
		case p.HostPort == 0:
			return fail("host_port", p.HostPort, "use 1 to 65535")
		case p.Port == 0:
			return fail("port", p.Port, "use 1 to 65535")
		}
		for j, q := range ports[:i] {
			if p.same(q) {
				return fail("host_port", p.HostPort, fmt.Sprintf("it is that of ports[%d] too: use another", j))
			}
		}
	}
	return nil
}

// Publish makes ports of the host lead to the task's sandbox, from outside and from the host itself, in place of those
// published before. What listens on such a port of the host is no longer reached by it.
func (p *Pool) Publish(task string, ports []Port) error {
	if err := validatePorts(ports); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.leases[task]
	if l == nil {
		return fmt.Errorf("publish ports of %q: %w", task, ErrNotTaken)
	}
	if p.closed {
		return fmt.Errorf("publish ports of %q: %w", task, errClosed)
	}
	if err := p.checkFree(l, ports); err != nil {
		return err
	}
	if slices.ContainsFunc(ports, Port.reachesLoopback) {
		if err := set("ipv4/conf/"+l.space.link+"/route_localnet", "1"); err != nil {
			return fmt.Errorf("publish ports of %q: %w", task, err)
		}
	}
	before := l.Ports
	l.Ports = slices.Clone(ports)
	if err := p.ledger.write(l); err != nil {
		l.Ports = before
		return fmt.Errorf("publish ports of %q: %w", task, err)
	}
	err := p.changeLocked(func(t *transaction) {
		t.unpublish(l.space, without(before, ports))
		t.publish(l.space, without(ports, before))
	})
	if err != nil {
		return fmt.Errorf("publish ports of %q: %w", task, err)
	}
	return nil
}

// without are the ports of one list that the other does not have.
func without(ports, others []Port) []Port {
	return slices.DeleteFunc(slices.Clone(ports), func(p Port) bool { return slices.Contains(others, p) })
}

// checkFree tells when another task has one of the ports.
func (p *Pool) checkFree(own *lease, ports []Port) error {
	for i, port := range ports {
		for _, l := range p.leases {
			if l != own && slices.ContainsFunc(l.Ports, port.same) {
				return spec.FieldError{Field: fmt.Sprintf("ports[%d]", i), Value: port.String(), Mend: fmt.Sprintf("task %s has it: use another", l.Task)}
			}
		}
	}
	return nil
}
