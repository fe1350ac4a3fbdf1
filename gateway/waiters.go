package gateway

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/queue"
)

// waiterShards spreads the locks of the pending calls; a power of two.
const waiterShards = 64

// waiters are the calls somebody waits for here, by call id. Two requests with one idempotency key wait for one call.
type waiters struct {
	seed   maphash.Seed
	shards [waiterShards]waiterShard
	free   sync.Pool
}

type waiterShard struct {
	mu sync.Mutex
	// +checklocks:mu
	calls map[string]*waiter
}

// signal is what a waiting request hears. A signal with a message or an error is the last one.
type signal struct {
	result *nats.Msg // the result's message
	err    error
	again  bool // publish again: the queue has not said that it has the call
	later  bool // publish again in a moment: the queue said that it has not
	look   bool // the result may be stored by now
}

// waiter is one waiting request. Its fields but signals and timer are guarded by the shard's lock.
type waiter struct {
	call    string
	of      queue.Function
	signals chan signal // capacity 2: one hint and the last signal always fit
	timer   *time.Timer
	since   time.Time
	looked  time.Time // when the sweep last asked for the stored result
	acked   bool      // the queue has the call
	held    *nats.Msg // a provisional result, until it is stored
	stored  string    // the attempt whose result is stored, when that was heard first
	next    *waiter   // another request that waits for the same call
}

func newWaiters() *waiters {
	w := &waiters{seed: maphash.MakeSeed()}
	for i := range w.shards {
		w.shards[i].calls = make(map[string]*waiter)
	}
	w.free.New = func() any {
		timer := time.NewTimer(time.Hour)
		timer.Stop()
		return &waiter{signals: make(chan signal, 2), timer: timer}
	}
	return w
}

func (ws *waiters) shard(call string) *waiterShard {
	return &ws.shards[maphash.String(ws.seed, call)%waiterShards]
}

// add starts to wait for a call; the timer runs for the given time. Give the waiter back by remove.
func (ws *waiters) add(of queue.Function, call string, now time.Time, patience time.Duration) *waiter {
	w, _ := ws.free.Get().(*waiter) // always one: New makes no other
	w.call, w.of, w.since, w.looked, w.acked = call, of, now, now, false
	w.held, w.stored = nil, ""
	w.timer.Reset(patience)
	shard := ws.shard(call)
	shard.mu.Lock()
	w.next = shard.calls[call]
	shard.calls[call] = w
	shard.mu.Unlock()
	return w
}

// remove ends the waiting. The waiter must not be used afterwards.
func (ws *waiters) remove(w *waiter) {
	shard := ws.shard(w.call)
	shard.mu.Lock()
	shard.unlinkLocked(w)
	shard.mu.Unlock()
	w.timer.Stop()
	for len(w.signals) > 0 { // nobody sends any more: senders hold the lock and find waiters in the map
		<-w.signals
	}
	ws.free.Put(w)
}

func (s *waiterShard) unlinkLocked(w *waiter) {
	first := s.calls[w.call]
	switch {
	case first == w && w.next == nil:
		delete(s.calls, w.call)
	case first == w:
		s.calls[w.call] = w.next
	default:
		for ; first != nil; first = first.next {
			if first.next == w {
				first.next = w.next
				break
			}
		}
	}
	w.next = nil
}

// hold keeps a provisional result until confirm says that it is stored, in whichever order they come.
func (ws *waiters) hold(call, sender string, result *nats.Msg) {
	shard := ws.shard(call)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for w := shard.calls[call]; w != nil; w = w.next {
		w.held = result
		if w.stored == sender {
			shard.finishLocked(call, signal{result: result})
			return
		}
	}
}

// confirm takes the word that an attempt's result is stored. A result that was not held, or another's, is to be looked for.
func (ws *waiters) confirm(call, sender string) {
	shard := ws.shard(call)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for w := shard.calls[call]; w != nil; w = w.next {
		w.stored = sender
		if w.held != nil && queue.SenderOf(w.held.Header) == sender {
			shard.finishLocked(call, signal{result: w.held})
			return
		}
	}
}

// finish gives every request that waits for the call its last signal.
func (ws *waiters) finish(call string, last signal) bool {
	shard := ws.shard(call)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.finishLocked(call, last)
}

func (s *waiterShard) finishLocked(call string, last signal) bool {
	first := s.calls[call]
	delete(s.calls, call)
	found := first != nil
	for first != nil {
		next := first.next
		first.next = nil
		first.signals <- last
		first = next
	}
	return found
}

// acked notes that the queue has the call.
func (ws *waiters) acked(call string) {
	shard := ws.shard(call)
	shard.mu.Lock()
	for w := shard.calls[call]; w != nil; w = w.next {
		w.acked = true
	}
	shard.mu.Unlock()
}

// again has the call published again in a moment.
func (ws *waiters) again(call string) {
	shard := ws.shard(call)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for w := shard.calls[call]; w != nil; w = w.next {
		w.hintLocked(signal{later: true})
	}
}

// lookSoon has the requests that wait for the call look for its stored result.
func (ws *waiters) lookSoon(call string) {
	shard := ws.shard(call)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for w := shard.calls[call]; w != nil; w = w.next {
		w.hintLocked(signal{look: true})
	}
}

// hint sends a signal that is not the last one, unless the waiter has one to read already.
func (ws *waiters) hint(w *waiter, call string, hint signal) {
	shard := ws.shard(call)
	shard.mu.Lock()
	for other := shard.calls[call]; other != nil; other = other.next {
		if other == w {
			w.hintLocked(hint)
		}
	}
	shard.mu.Unlock()
}

func (w *waiter) hintLocked(hint signal) {
	if len(w.signals) == 0 {
		w.signals <- hint
	}
}

// due is what a sweep has to do.
type due struct {
	look []string // calls whose stored result may be there
	lost []string // calls that the queue did not take in time
}

// sweep collects the calls that have waited and were not looked for since the given time, and has those published again
// that the queue has not confirmed. Calls that wait unconfirmed since the time lostBefore are given up.
func (ws *waiters) sweep(now, lookedBefore, lostBefore time.Time) due {
	var d due
	for i := range ws.shards {
		shard := &ws.shards[i]
		shard.mu.Lock()
		for call, first := range shard.calls {
			for w := first; w != nil; w = w.next {
				if w.looked.After(lookedBefore) {
					continue
				}
				w.looked = now
				switch {
				case w.acked:
				case w.since.Before(lostBefore):
					d.lost = append(d.lost, call)
				default:
					w.hintLocked(signal{again: true})
				}
				d.look = append(d.look, call)
			}
		}
		shard.mu.Unlock()
	}
	return d
}

// waitedFor are the calls that somebody waits for here since before a time, by function.
func (ws *waiters) waitedFor(since time.Time) map[queue.Function][]string {
	all := make(map[queue.Function][]string)
	for i := range ws.shards {
		shard := &ws.shards[i]
		shard.mu.Lock()
		for call, w := range shard.calls {
			if w.since.Before(since) {
				all[w.of] = append(all[w.of], call)
			}
		}
		shard.mu.Unlock()
	}
	return all
}
