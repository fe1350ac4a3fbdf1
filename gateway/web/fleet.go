package web

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// hintEvery is how often the autoscaler is told of requests that wait.
	hintEvery = 250 * time.Millisecond
	// maxWaiting bounds the requests that wait for a function's workers in one gateway.
	maxWaiting = 10_000
)

// errFull says that too many wait already.
var errFull = errors.New("too many requests wait")

// fleet is one function's workers, and the requests that wait for one.
type fleet struct {
	hint func(waiting int)

	mu      sync.Mutex
	members map[string]*member
	waiting []*waiter
	hinted  time.Time
}

// member is a worker with a door.
type member struct {
	beat  queue.Heartbeat
	heard time.Time
	// own are the requests that this gateway has there, others how many slots seem to be used by anybody else.
	own, others int
	// away says that it refused or was not reached; its next heartbeat, or the end of a request there, forgets that.
	away bool
}

// waiter is a request that waits. A nil signal says to look again, anything else is why there will be no worker.
type waiter struct{ signal chan error }

// hear takes a heartbeat.
func (f *fleet) hear(beat queue.Heartbeat, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, known := f.members[beat.Alloc]
	if beat.State == queue.StateStopped {
		delete(f.members, beat.Alloc)
		began := known && m.beat.Ready.IsZero()
		if began && beat.Reason != "" && !strings.Contains(beat.Reason, "context canceled") && len(f.members) == 0 { // nobody stopped it
			f.tellLocked(&Fault{Kind: wire.KindStart, Message: "the function does not start: " + beat.Reason})
		}
		return
	}
	if !known {
		m = &member{}
		f.members[beat.Alloc] = m
	}
	m.beat, m.heard, m.away = beat, now, false
	m.others = max(beat.Busy-m.own, 0)
	f.wakeLocked(m.free())
}

func (m *member) takes() bool {
	return m.beat.Door != nil && (m.beat.State == queue.StateReady || m.beat.State == queue.StateBusy)
}

// free is how many more requests may be tried there. What others use is a moment old, so one is always tried when this gateway has
// none there: a worker that has no slot says so.
func (m *member) free() int {
	if m.away || !m.takes() {
		return 0
	}
	free := m.beat.Slots - m.own
	if m.own > 0 {
		free -= m.others
	}
	return max(free, 0)
}

// bury forgets the workers that were not heard since a time.
func (f *fleet) bury(before time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for alloc, m := range f.members {
		if m.heard.Before(before) {
			delete(f.members, alloc)
		}
	}
}

// tellLocked ends the wait of all.
func (f *fleet) tellLocked(why error) {
	for _, w := range f.waiting {
		w.signal <- why
	}
	f.waiting = nil
}

// wakeLocked lets some of those who wait look again, the first ones first.
func (f *fleet) wakeLocked(count int) {
	count = min(count, len(f.waiting))
	for _, w := range f.waiting[:count] {
		w.signal <- nil
	}
	f.waiting = slices.Delete(f.waiting, 0, count)
}

// pickLocked takes a slot of the worker with the least to do.
func (f *fleet) pickLocked() *member {
	var best *member
	for _, m := range f.members {
		if m.free() > 0 && (best == nil || (m.own+m.others)*best.beat.Slots < (best.own+best.others)*m.beat.Slots) {
			best = m
		}
	}
	if best != nil {
		best.own++
	}
	return best
}

// take waits for a worker with a free slot and takes it; free it again.
func (f *fleet) take(ctx context.Context) (*member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ticker *time.Ticker
	for first := true; ; first = false {
		if m := f.pickLocked(); m != nil {
			return m, nil
		}
		if len(f.waiting) >= maxWaiting {
			return nil, errFull
		}
		w := &waiter{signal: make(chan error, 1)}
		if first {
			f.waiting = append(f.waiting, w)
			ticker = time.NewTicker(hintEvery)
			defer ticker.Stop()
		} else {
			f.waiting = slices.Insert(f.waiting, 0, w) // it was its turn
		}
		if err := f.waitLocked(ctx, w, ticker.C); err != nil {
			return nil, err
		}
	}
}

// waitLocked waits without the lock until it is told something.
func (f *fleet) waitLocked(ctx context.Context, w *waiter, tick <-chan time.Time) error {
	for {
		f.hintLocked(time.Now())
		f.mu.Unlock()
		select {
		case err := <-w.signal:
			f.mu.Lock()
			return err
		case <-tick:
			f.mu.Lock()
		case <-ctx.Done():
			f.mu.Lock()
			if at := slices.Index(f.waiting, w); at >= 0 {
				f.waiting = slices.Delete(f.waiting, at, at+1)
			} else {
				f.wakeLocked(1) // it was told to look: somebody else may
			}
			return context.Cause(ctx)
		}
	}
}

// hintLocked tells the autoscaler how many wait, not more often than it needs to know.
func (f *fleet) hintLocked(now time.Time) {
	if now.Sub(f.hinted) < hintEvery/2 && len(f.waiting) > 1 {
		return
	}
	f.hinted = now
	f.hint(len(f.waiting))
}

// release gives a slot back.
func (f *fleet) release(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.own--
	m.away = false
	f.wakeLocked(1)
}

// avoid gives the slot of a worker back that took nothing, and tries it no more until it is heard again.
func (f *fleet) avoid(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.own--
	m.away = true
}
