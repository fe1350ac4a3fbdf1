package leader

import (
	"sync"
	"time"
)

// Lease is the right to act.
type Lease struct {
	// Index is higher than that of every earlier holder.
	Index uint64
	// Until is when the holder must not act any more, unless it was renewed.
	Until time.Time
}

// tenure is what an instance knows of its lease.
type tenure struct {
	// lasts is how long the right lasts after the request was sent that got or renewed it.
	lasts   time.Duration
	changed chan struct{}

	mu   sync.Mutex
	held Lease
}

func newTenure(lasts time.Duration) tenure {
	return tenure{lasts: lasts, changed: make(chan struct{}, 1)}
}

// Lease is the right to act, if this instance has it now.
func (t *tenure) Lease() (Lease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held, time.Now().Before(t.held.Until)
}

// Changed tells that this instance got or lost the lease. One listener.
func (t *tenure) Changed() <-chan struct{} { return t.changed }

// hold notes a lease that was got by a request sent at a time.
func (t *tenure) hold(index uint64, sent time.Time) {
	t.mu.Lock()
	t.held = Lease{Index: index, Until: sent.Add(t.lasts)}
	t.mu.Unlock()
	signal(t.changed)
}

// renew notes a renewal that was sent at a time. One that comes after the lease seemed to end is told as a change.
func (t *tenure) renew(sent time.Time) {
	t.mu.Lock()
	lapsed := time.Now().After(t.held.Until)
	t.held.Until = sent.Add(t.lasts)
	t.mu.Unlock()
	if lapsed {
		signal(t.changed)
	}
}

func (t *tenure) lose() {
	t.mu.Lock()
	t.held = Lease{}
	t.mu.Unlock()
	signal(t.changed)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
