package network

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// numbers gives namespaces their numbers, which their addresses and names follow from.
type numbers struct {
	within netip.Prefix
	links  string // how interfaces' names begin
	dir    string // of the namespaces' files

	last  int // given: the next one is as far from reuse as can be
	taken map[int]bool
}

// space is the one with the given number.
func (n *numbers) space(number int) space {
	base := n.within.Addr().As4()
	var addr [4]byte
	binary.BigEndian.PutUint32(addr[:], binary.BigEndian.Uint32(base[:])+uint32(number))
	return space{
		number: number,
		addr:   netip.AddrFrom4(addr),
		link:   n.links + strconv.Itoa(number),
		path:   filepath.Join(n.dir, strconv.Itoa(number)),
	}
}

// end is the number after the last: the range's own last address is not used, as its first is not.
func (n *numbers) end() int { return 1<<(32-n.within.Bits()) - 1 }

// take marks a number taken.
func (n *numbers) take(number int) {
	n.taken[number] = true
	n.last = max(n.last, number)
}

// next takes a number that is free.
func (n *numbers) next() (space, error) {
	for range n.end() {
		n.last++
		if n.last >= n.end() {
			n.last = 1
		}
		if !n.taken[n.last] {
			n.taken[n.last] = true
			return n.space(n.last), nil
		}
	}
	return space{}, spec.FieldError{Field: "network.range", Value: n.within.String(), Mend: "all its addresses are in use: choose a larger range"}
}
