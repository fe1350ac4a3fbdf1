package network

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What changes in the table while it is in place: namespaces, their policies and ports.

// linkKey is an interface's name as nftables compares it.
func linkKey(name string) []byte {
	key := make([]byte, unix.IFNAMSIZ)
	copy(key, name)
	return key
}

func (t *transaction) addSpace(s space) {
	t.keep(t.conn.SetAddElements(t.source, sourceElement(s)))
}

func (t *transaction) removeSpace(s space) {
	t.keep(t.conn.SetDeleteElements(t.source, sourceElement(s)))
}

func sourceElement(s space) []nftables.SetElement {
	return []nftables.SetElement{{Key: linkKey(s.link), Val: s.addr.AsSlice()}}
}

// policyChain is the chain of a policy with an allow list: the interface's own.
func policyChain(s space) string { return "allow-" + s.link }

// grant opens what the lease's policy allows.
func (t *transaction) grant(l *lease) {
	if !l.Policy.Egress {
		return
	}
	if len(l.Policy.Allow) > 0 {
		chain := policyChain(l.space)
		t.chain(chain)
		for _, d := range l.Policy.Allow {
			for _, condition := range reaching(d) {
				t.rule(chain, condition, accept())
			}
		}
		t.rule(chain, leadsTo(chainRefuse))
	}
	t.keep(t.conn.SetAddElements(t.policy, policyElement(l)))
	if askers := t.askerElements(l); len(askers) > 0 {
		t.keep(t.conn.SetAddElements(t.askers, askers))
	}
}

// revoke closes what grant opened.
func (t *transaction) revoke(l *lease) {
	if !l.Policy.Egress {
		return
	}
	t.keep(t.conn.SetDeleteElements(t.policy, policyElement(l)))
	if askers := t.askerElements(l); len(askers) > 0 {
		t.keep(t.conn.SetDeleteElements(t.askers, askers))
	}
	if len(l.Policy.Allow) > 0 {
		t.conn.DelChain(&nftables.Chain{Table: t.table, Name: policyChain(l.space)})
	}
}

func policyElement(l *lease) []nftables.SetElement {
	chain := chainOpen
	if len(l.Policy.Allow) > 0 {
		chain = policyChain(l.space)
	}
	return []nftables.SetElement{{Key: linkKey(l.space.link), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

func (t *transaction) askerElements(l *lease) []nftables.SetElement {
	var all []nftables.SetElement
	for _, server := range l.Policy.resolvers(t.resolvers) {
		all = append(all, nftables.SetElement{Key: append(linkKey(l.space.link), server.AsSlice()...)})
	}
	return all
}

func (t *transaction) publish(s space, ports []Port) {
	if len(ports) > 0 {
		t.keep(t.conn.SetAddElements(t.ports, portElements(s, ports)))
	}
}

func (t *transaction) unpublish(s space, ports []Port) {
	if len(ports) > 0 {
		t.keep(t.conn.SetDeleteElements(t.ports, portElements(s, ports)))
	}
}

// portElements are the map's: each field fills whole 32-bit registers.
func portElements(s space, ports []Port) []nftables.SetElement {
	var all []nftables.SetElement
	for _, p := range ports {
		key := slices.Concat(p.host().AsSlice(), []byte{p.protocol(), 0, 0, 0}, binaryutil.BigEndian.PutUint16(p.HostPort), make([]byte, 2))
		value := slices.Concat(s.addr.AsSlice(), binaryutil.BigEndian.PutUint16(p.Port), make([]byte, 2))
		all = append(all, nftables.SetElement{Key: key, Val: value})
	}
	return all
}
