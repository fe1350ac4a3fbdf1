package network

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The pieces that rules are made of. Each is a list of nftables' instructions; a rule is several of them in a row, and ends
// at the first that does not hold. Registers are free at each piece's beginning and end.

// clause is a piece of a rule.
type clause []expr.Any

const (
	// first is the register that pieces work in; its second 32 bits are also a register of their own.
	first       = unix.NFT_REG_1
	firstSecond = unix.NFT_REG32_01

	icmpUnreachable = 3
	icmpExceeded    = 11
	icmpParameter   = 12
	dnsPort         = 53

	// Offsets in the IPv4 header.
	sourceAt      = 12
	destinationAt = 16
	checksumAt    = 10
	// Offsets in an ICMP error: of its checksum, and of the addresses of the packet that it is about.
	icmpChecksumAt    = 2
	icmpSourceAt      = 8 + sourceAt
	icmpDestinationAt = 8 + destinationAt
	// Offset of the destination port of TCP and UDP.
	portAt = 2
)

func equals(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: data} }

func differs(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: first, Data: data} }

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: first} }

// arrivesBy and leavesBy hold for interfaces whose names begin so.
func arrivesBy(prefix string) clause {
	return clause{meta(expr.MetaKeyIIFNAME), equals([]byte(prefix))}
}

func leavesBy(prefix string) clause { return clause{meta(expr.MetaKeyOIFNAME), equals([]byte(prefix))} }

func leavesByOther(prefix string) clause {
	return clause{meta(expr.MetaKeyOIFNAME), differs([]byte(prefix))}
}

func notIPv4() clause { return clause{meta(expr.MetaKeyNFPROTO), differs([]byte{unix.NFPROTO_IPV4})} }

func protocol(number byte) clause { return clause{meta(expr.MetaKeyL4PROTO), equals([]byte{number})} }

func load(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: first, Base: base, Offset: offset, Len: length}
}

func ipField(offset uint32) expr.Any { return load(expr.PayloadBaseNetworkHeader, offset, 4) }

// within compares the address at the offset with a network.
func within(offset uint32, network netip.Prefix, compare func([]byte) expr.Any) clause {
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - network.Bits()))
	if network.Bits() == 0 {
		mask = make([]byte, 4) // a shift by the whole width would do too, but says less
	}
	return clause{
		ipField(offset),
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		compare(network.Masked().Addr().AsSlice()),
	}
}

func to(network netip.Prefix) clause { return within(destinationAt, network, equals) }

func fromOther(network netip.Prefix) clause { return within(sourceAt, network, differs) }

func from(network netip.Prefix) clause { return within(sourceAt, network, equals) }

func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

func toPort(port uint16) clause {
	return clause{load(expr.PayloadBaseTransportHeader, portAt, 2), equals(binaryutil.BigEndian.PutUint16(port))}
}

func icmpType(number byte) clause {
	return append(protocol(unix.IPPROTO_ICMP), load(expr.PayloadBaseTransportHeader, 0, 1), equals([]byte{number}))
}

// icmpErrors are the ICMP messages that quote a packet.
func icmpErrors() []byte { return []byte{icmpUnreachable, icmpExceeded, icmpParameter} }

// reaching are the conditions under which a packet goes to the destination, any of which will do.
func reaching(d Destination) []clause {
	if d.Port == 0 {
		return []clause{to(d.Prefix)}
	}
	var all []clause
	for _, number := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		all = append(all, slices.Concat(to(d.Prefix), protocol(number), toPort(d.Port)))
	}
	return all
}

// tracked holds for packets in one of the given states of connection tracking.
func tracked(bits uint32) clause {
	return clause{
		&expr.Ct{Register: first, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		differs(make([]byte, 4)),
	}
}

// answers holds for packets against a connection's direction: of one that the other side has opened.
func answers() clause {
	const reply = 1
	return append(clause{&expr.Ct{Register: first, Key: expr.CtKeyDIRECTION}, equals([]byte{reply})}, tracked(expr.CtStateBitESTABLISHED)...)
}

// published holds for packets of connections to a published port.
func published() clause {
	const destinationNAT = 1 << 5 // IPS_DST_NAT of the kernel's connection tracking
	return clause{
		&expr.Ct{Register: first, Key: expr.CtKeySTATUS},
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(destinationNAT), Xor: make([]byte, 4)},
		differs(make([]byte, 4)),
	}
}

// toThisHost holds for packets to an address of the host.
func toThisHost() clause {
	return clause{
		&expr.Fib{Register: first, ResultADDRTYPE: true, FlagDADDR: true},
		equals(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

func constant(addr netip.Addr) expr.Any {
	return &expr.Immediate{Register: first, Data: addr.AsSlice()}
}

// rewrite puts the address in the register into the IPv4 header.
func rewrite(offset uint32) expr.Any {
	return &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: first, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4,
		CsumType: expr.CsumTypeInet, CsumOffset: checksumAt, CsumFlags: unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR,
	}
}

// rewriteQuoted puts the address in the register into the packet that an ICMP error quotes.
func rewriteQuoted(offset uint32) expr.Any {
	return &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: first, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 4,
		CsumType: expr.CsumTypeInet, CsumOffset: icmpChecksumAt,
	}
}

func verdict(kind expr.VerdictKind, chain string) clause {
	return clause{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() clause { return verdict(expr.VerdictAccept, "") }

func drop() clause { return verdict(expr.VerdictDrop, "") }

// leadsTo goes on in another chain and does not come back.
func leadsTo(chain string) clause { return verdict(expr.VerdictGoto, chain) }

// refuseTCP and refuseOther tell the sender at once, in the words that gVisor makes an error of for a waiting guest: it ignores
// that something is prohibited.
func refuseTCP() clause {
	return append(protocol(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
}

func refuseOther() clause {
	return clause{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
}
