package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names in the table. A base chain hands what concerns sandboxes to a chain that decides it.
const (
	chainArriving   = "arriving"   // the first look at a packet
	chainEnter      = "enter"      // a guest's packet becomes one of the host's addresses
	chainDeparting  = "departing"  // the last look
	chainLeave      = "leave"      // a packet to a guest becomes one to the guest's own address
	chainForwarding = "forwarding" // from one interface to another
	chainOutward    = "outward"    // from guests
	chainInward     = "inward"     // to guests
	chainIncoming   = "incoming"   // to the host itself
	chainToHost     = "tohost"     // from guests
	chainPortsIn    = "portsin"    // published ports, for others
	chainPortsHere  = "portshere"  // and for the host itself
	chainPublished  = "published"
	chainMasquerade = "masquerade"
	chainOpen       = "open" // the policy of egress without an allow list
	chainRefuse     = "refuse"

	mapSource = "source" // interface: the host's address for it
	mapPolicy = "policy" // interface: the chain with its policy
	setAskers = "askers" // interface and resolver that it may ask
	mapPorts  = "ports"  // address, protocol and port on the host: sandbox's address and port
)

// Priorities of the chains that rewrite: after fragments are put together and before connection tracking, and after all NAT.
const (
	arrivingPriority  = -310
	departingPriority = 350
)

// rules is the pool's table of nftables. Each change is one transaction: packets see all of it or nothing.
type rules struct {
	cfg       Config
	prefix    string // of the host's interfaces
	resolvers []netip.Addr

	table                         *nftables.Table
	source, policy, askers, ports *nftables.Set
}

func newRules(cfg Config, resolvers []netip.Addr) *rules {
	table := &nftables.Table{Name: cfg.Name, Family: nftables.TableFamilyINet}
	askers := nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr)
	outside := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	inside := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	return &rules{
		cfg: cfg, prefix: cfg.Name + "-", resolvers: resolvers, table: table,
		source: &nftables.Set{ID: 1, Table: table, Name: mapSource, IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeIPAddr},
		policy: &nftables.Set{ID: 2, Table: table, Name: mapPolicy, IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeVerdict},
		askers: &nftables.Set{ID: 3, Table: table, Name: setAskers, Concatenation: true, KeyType: askers},
		ports:  &nftables.Set{ID: 4, Table: table, Name: mapPorts, IsMap: true, Concatenation: true, KeyType: outside, DataType: inside},
	}
}

// transaction collects changes; apply makes them.
type transaction struct {
	*rules
	conn *nftables.Conn
	err  error
}

func (r *rules) begin() (*transaction, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &transaction{rules: r, conn: conn}, nil
}

// change makes the changes that the function collects, all at once.
func (r *rules) change(collect func(*transaction)) error {
	t, err := r.begin()
	if err != nil {
		return err
	}
	collect(t)
	if t.err != nil {
		return fmt.Errorf("collect changes of nftables: %w", t.err)
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("change nftables: %w", err)
	}
	return nil
}

// present tells whether the table is there: whoever flushes the host's rules takes it away.
func (r *rules) present() (bool, error) {
	t, err := r.begin()
	if err != nil {
		return false, err
	}
	tables, err := t.conn.ListTablesOfFamily(r.table.Family)
	if err != nil {
		return false, fmt.Errorf("list tables of nftables: %w", err)
	}
	return slices.ContainsFunc(tables, func(table *nftables.Table) bool { return table.Name == r.table.Name }), nil
}

// remove takes the table away.
func (r *rules) remove() error {
	return r.change(func(t *transaction) {
		t.conn.AddTable(t.table) // or the deletion fails where there is none
		t.conn.DelTable(t.table)
	})
}

// install replaces the table by one with the given namespaces and leases in it.
func (r *rules) install(spaces []space, leases []*lease) error {
	return r.change(func(t *transaction) {
		t.conn.AddTable(t.table)
		t.conn.DelTable(t.table)
		t.conn.AddTable(t.table)
		for _, set := range []*nftables.Set{t.source, t.policy, t.askers, t.ports} {
			t.keep(t.conn.AddSet(set, nil))
		}
		t.chains()
		t.rewriting()
		t.filtering()
		t.translating()
		for _, s := range spaces {
			t.addSpace(s)
		}
		for _, l := range leases {
			t.addSpace(l.space)
			t.grant(l)
			t.publish(l.space, l.Ports)
		}
	})
}

func (t *transaction) keep(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *transaction) rule(chain string, clauses ...clause) {
	t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: &nftables.Chain{Table: t.table, Name: chain}, Exprs: slices.Concat(clauses...)})
}

func (t *transaction) chain(name string) {
	t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name})
}

func (t *transaction) baseChain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) {
	policy := nftables.ChainPolicyAccept // of what concerns no sandbox
	t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name, Type: kind, Hooknum: hook, Priority: &priority, Policy: &policy})
}

func (t *transaction) chains() {
	t.baseChain(chainArriving, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, arrivingPriority)
	t.baseChain(chainDeparting, nftables.ChainTypeFilter, nftables.ChainHookPostrouting, departingPriority)
	t.baseChain(chainForwarding, nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	t.baseChain(chainIncoming, nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	t.baseChain(chainPortsIn, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	t.baseChain(chainPortsHere, nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest)
	t.baseChain(chainMasquerade, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	for _, name := range []string{chainEnter, chainLeave, chainOutward, chainInward, chainToHost, chainPublished, chainOpen, chainRefuse} {
		t.chain(name)
	}
}

// rewriting puts the host's address for a sandbox in place of the guest's, and back.
func (t *transaction) rewriting() {
	t.rule(chainArriving, arrivesBy(t.prefix), leadsTo(chainEnter))
	t.rule(chainEnter, notIPv4(), drop())
	t.rule(chainEnter, fromOther(single(Guest())), drop())
	t.rule(chainEnter, to(loopback()), drop()) // published ports make loopback routable
	t.rule(chainEnter, t.sourceOf(), clause{rewrite(sourceAt)})
	t.rule(chainEnter, fromOther(t.cfg.Range), drop()) // an interface that the map does not know
	for _, number := range icmpErrors() {
		t.rule(chainEnter, icmpType(number), t.sourceOf(), clause{rewriteQuoted(icmpDestinationAt)})
	}
	t.rule(chainDeparting, leavesBy(t.prefix), leadsTo(chainLeave))
	for _, number := range icmpErrors() {
		t.rule(chainLeave, icmpType(number), clause{constant(Guest()), rewriteQuoted(icmpSourceAt)})
	}
	t.rule(chainLeave, clause{constant(Guest()), rewrite(destinationAt)})
}

func loopback() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8) }

// sourceOf loads the host's address for the interface that the packet came by.
func (t *transaction) sourceOf() clause {
	return clause{meta(expr.MetaKeyIIFNAME), &expr.Lookup{SourceRegister: first, DestRegister: first, IsDestRegSet: true, SetName: t.source.Name, SetID: t.source.ID}}
}

// filtering is what guests reach and who reaches them.
func (t *transaction) filtering() {
	t.rule(chainForwarding, arrivesBy(t.prefix), leadsTo(chainOutward))
	t.rule(chainForwarding, leavesBy(t.prefix), leadsTo(chainInward))
	t.rule(chainIncoming, arrivesBy(t.prefix), leadsTo(chainToHost))

	// Each packet of a connection that a guest opens is looked at, not its first alone: what the policy no longer allows
	// ends at once.
	for _, chain := range []string{chainOutward, chainToHost} {
		t.rule(chain, answers(), accept())
		for _, number := range icmpErrors() {
			t.rule(chain, tracked(expr.CtStateBitRELATED), icmpType(number), accept())
		}
		t.rule(chain, tracked(expr.CtStateBitINVALID), drop())
		for _, number := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			t.rule(chain, t.mayAsk(), protocol(number), toPort(dnsPort), accept())
		}
	}
	t.rule(chainToHost, leadsTo(chainRefuse))
	t.rule(chainOutward, t.otherProtocol(), leadsTo(chainRefuse))
	for _, d := range t.cfg.always() {
		for _, condition := range reaching(d) {
			t.rule(chainOutward, condition, leadsTo(chainRefuse))
		}
	}
	t.rule(chainOutward, t.ownPolicy())
	t.rule(chainOutward, leadsTo(chainRefuse))

	for _, network := range t.cfg.Private {
		t.rule(chainOpen, to(network), leadsTo(chainRefuse))
	}
	t.rule(chainOpen, accept())

	t.rule(chainInward, tracked(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
	t.rule(chainInward, published(), accept())
	t.rule(chainInward, drop())

	t.rule(chainRefuse, refuseTCP())
	t.rule(chainRefuse, refuseOther())
}

// mayAsk holds for packets of guests to a resolver that their policy knows.
func (t *transaction) mayAsk() clause {
	return clause{
		meta(expr.MetaKeyIIFNAME), // fills the four 32-bit registers before the address
		&expr.Payload{DestRegister: unix.NFT_REG32_04, Base: expr.PayloadBaseNetworkHeader, Offset: destinationAt, Len: 4},
		&expr.Lookup{SourceRegister: first, SetName: t.askers.Name, SetID: t.askers.ID},
	}
}

// otherProtocol holds for all but TCP, UDP and ICMP, which alone can be told apart by connections.
func (t *transaction) otherProtocol() clause {
	known := &nftables.Set{ID: 5, Table: t.table, Anonymous: true, Constant: true, Name: "__set%d", KeyType: nftables.TypeInetProto}
	t.keep(t.conn.AddSet(known, []nftables.SetElement{{Key: []byte{unix.IPPROTO_ICMP}}, {Key: []byte{unix.IPPROTO_TCP}}, {Key: []byte{unix.IPPROTO_UDP}}}))
	return clause{meta(expr.MetaKeyL4PROTO), &expr.Lookup{SourceRegister: first, SetName: known.Name, SetID: known.ID, Invert: true}}
}

// ownPolicy goes on in the chain of the policy that the packet's interface has.
func (t *transaction) ownPolicy() clause {
	return clause{meta(expr.MetaKeyIIFNAME), &expr.Lookup{SourceRegister: first, IsDestRegSet: true, SetName: t.policy.Name, SetID: t.policy.ID}}
}

// translating is NAT: guests leave with the host's address, and published ports lead to them.
func (t *transaction) translating() {
	t.rule(chainPortsIn, arrivesBy(t.prefix), accept()) // no way from a sandbox through a port to another one
	for _, chain := range []string{chainPortsIn, chainPortsHere} {
		t.rule(chain, toThisHost(), leadsTo(chainPublished))
	}
	anywhere := &expr.Immediate{Register: first, Data: netip.IPv4Unspecified().AsSlice()}
	for _, address := range []expr.Any{ipField(destinationAt), anywhere} {
		for _, number := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			t.rule(chainPublished, protocol(number), clause{
				address,
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG32_01},
				&expr.Payload{DestRegister: unix.NFT_REG32_02, Base: expr.PayloadBaseTransportHeader, Offset: portAt, Len: 2},
				&expr.Lookup{SourceRegister: first, DestRegister: first, IsDestRegSet: true, SetName: t.ports.Name, SetID: t.ports.ID},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: first, RegProtoMin: firstSecond},
			})
		}
	}
	// A guest has a loopback of its own: a connection from the host's comes from the gateway.
	t.rule(chainMasquerade, leavesBy(t.prefix), from(loopback()), clause{
		constant(Gateway()),
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: first},
	})
	t.rule(chainMasquerade, from(t.cfg.Range), leavesByOther(t.prefix), clause{&expr.Masq{}})
}
