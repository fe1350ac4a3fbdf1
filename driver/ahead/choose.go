package ahead

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// superfluous takes out the members that should go: those nobody wants any more, empty ones that could be thawed by now, and, the
// longest unwanted first, as many as the node's memory needs.
func (p *Pool) superfluous() []Member {
	short := p.short()
	p.mu.Lock()
	defer p.mu.Unlock()
	var gone []Member
	for key, k := range p.kinds {
		old := time.Since(k.wanted) > p.cfg.Idle
		if old {
			delete(p.kinds, key)
		}
		if k.member != nil && (old || p.outgrownLocked(k)) {
			gone = append(gone, k.takeLocked())
		}
	}
	if oldest := p.oldestLocked(); short && oldest != nil {
		gone = append(gone, oldest.takeLocked()) // one at a look: what it frees shows at the next
	}
	return gone
}

// outgrownLocked tells of an empty member whose place a standby could take.
func (p *Pool) outgrownLocked(k *kind) bool {
	fits := p.usedLocked()-k.memory+max(k.standby, emptyMemory) <= p.cfg.Memory
	return !p.cfg.Empty && !k.large && fits && !k.member.Standby() && k.member.CanThaw()
}

// short tells whether the node's memory is.
func (p *Pool) short() bool {
	free, err := p.free()
	if err != nil {
		p.log.Warn().Err(err).Msg("measure the node's memory")
		return false
	}
	return free < leastFree
}

// oldestLocked is the kind with a member that was wanted longest ago.
func (p *Pool) oldestLocked() *kind {
	var oldest *kind
	for _, k := range p.kinds {
		if k.member != nil && (oldest == nil || k.wanted.Before(oldest.wanted)) {
			oldest = k
		}
	}
	return oldest
}

// next chooses what to make: a member of the kind wanted last that has none and fits the budget, where members wanted less may have
// to go for it. Where a standby does not fit, an empty one may.
func (p *Pool) next() (k *kind, make Make, empty bool, drop []Member) {
	if p.short() {
		return nil, nil, false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var lacking []*kind
	for _, k := range p.kinds {
		if k.member == nil && k.failures < giveUpAfter {
			lacking = append(lacking, k)
		}
	}
	slices.SortFunc(lacking, func(a, b *kind) int { return cmp.Compare(b.wanted.UnixNano(), a.wanted.UnixNano()) })
	for _, k := range lacking {
		if !k.large && !p.cfg.Empty {
			if drop, fits := p.roomLocked(k, max(k.standby, emptyMemory)); fits {
				return k, k.make, false, drop
			}
		}
		if drop, fits := p.roomLocked(k, emptyMemory); fits {
			return k, k.make, true, drop
		}
	}
	return nil, nil, false, nil
}

// roomLocked finds room in the budget for one more member, out of those wanted less than it, and takes these out.
func (p *Pool) roomLocked(wanted *kind, need int64) (drop []Member, fits bool) {
	used := p.usedLocked()
	var less []*kind
	for _, k := range p.kinds {
		if k.member != nil && k.wanted.Before(wanted.wanted) {
			less = append(less, k)
		}
	}
	slices.SortFunc(less, func(a, b *kind) int { return cmp.Compare(a.wanted.UnixNano(), b.wanted.UnixNano()) })
	var leaving []*kind
	for _, k := range less {
		if used+need <= p.cfg.Memory {
			break
		}
		used -= k.memory
		leaving = append(leaving, k)
	}
	if used+need > p.cfg.Memory {
		return nil, false
	}
	for _, k := range leaving {
		drop = append(drop, k.takeLocked())
	}
	return drop, true
}

// availableMemory is the part of the node's memory that can be had without swapping (proc_meminfo(5)).
func availableMemory() (float64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read the node's memory: %w", err)
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		if kb, err := strconv.ParseFloat(fields[0], 64); err == nil {
			values[name] = kb
		}
	}
	if values["MemTotal"] == 0 {
		return 0, fmt.Errorf("read the node's memory: no MemTotal in /proc/meminfo")
	}
	return values["MemAvailable"] / values["MemTotal"], nil
}
