package queue

import (
	"slices"
	"time"
)

// parkFor is how long a call waits for a slot here that was lent while the call was on its way. Then another worker may have it: a
// return counts as an attempt, so it must be rare.
const parkFor = 5 * time.Second

// Loans are a puller's slots that are lent to work which comes by another way than the queue.
type Loans struct{ puller *Puller }

// Loans are the puller's.
func (p *Puller) Loans() Loans { return Loans{p} }

// Take takes a slot; false says that none is free, that a call waits for it, or that the puller takes nothing new. Each one that was
// taken is given back.
func (l Loans) Take() bool {
	p := l.puller
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.resting || len(p.held)+p.lent >= p.slots {
		return false
	}
	p.lent++
	return true
}

// GiveBack gives a slot back, for which the puller pulls again.
func (l Loans) GiveBack() {
	p := l.puller
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent--
	freed(p)
	if err := p.askLocked(); err != nil {
		p.log.Debug().Err(err).Msg("pull for a slot that was lent; the puller repairs itself")
	}
}

// Count is the number of slots that are lent.
func (l Loans) Count() int {
	l.puller.mu.Lock()
	defer l.puller.mu.Unlock()
	return l.puller.lent
}

// The functions below are called with the puller's lock held.

// freeSlots is the number of slots that nothing is in and no pull covers.
func freeSlots(p *Puller) int { return p.slots - len(p.held) - p.lent - p.asked }

// seat gives a held delivery its slot, or lets it wait for one where the slots that it was pulled for were lent meanwhile.
func seat(p *Puller, d *Delivery) {
	if len(p.parked) > 0 || len(p.held)+p.lent > p.slots {
		p.parked = append(p.parked, d)
		return
	}
	p.arrived <- d
}

// freed gives a slot that became free to the delivery that waits the longest, and tells whoever waits for all to be free.
func freed(p *Puller) {
	if len(p.parked) > 0 && !p.stopped && len(p.held)-len(p.parked)+p.lent < p.slots {
		p.arrived <- p.parked[0]
		p.parked = slices.Delete(p.parked, 0, 1)
	}
	close(p.released)
	p.released = make(chan struct{})
}

// overdue are the deliveries that wait for a slot since before the given time.
func overdue(p *Puller, since time.Time) []*Delivery {
	count := 0
	for count < len(p.parked) && p.parked[count].Received.Before(since) {
		count++
	}
	return slices.Clone(p.parked[:count])
}
