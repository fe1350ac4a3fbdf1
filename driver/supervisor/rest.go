package supervisor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/queue"
)

// maxRest bounds a rest, whatever is asked for: an autoscaler that died must not leave workers idle.
const maxRest = time.Minute

// rest is the worker's pause between its last calls and its end, or its next calls: the autoscaler asks for it before it
// lowers the count, and the worker goes on pulling by itself when it hears nothing more.
type rest struct {
	log     zerolog.Logger
	changed func()
	sub     *nats.Subscription
	waiting sync.WaitGroup

	mu     sync.Mutex
	lease  uint64        // the newest that was heard of
	puller *queue.Puller // nil before the worker serves
	asked  bool          // to rest
	quiet  bool          // and no call is on its way
	pauses int           // how many there were
	wake   *time.Timer
	closed chan struct{}
	// over is told each time that the worker is asked to hand its calls over; overUntil is how long that holds.
	over      chan struct{}
	overUntil time.Time
}

// listen begins to take the autoscaler's words. Close it.
func (r *rest) listen(w *Worker) error {
	r.log, r.changed, r.closed = w.log, w.beats.changed, make(chan struct{})
	r.over = make(chan struct{}, 1)
	sub, err := w.nc.Subscribe(w.function.ControlSubject(w.task.Identity.Alloc), r.hear)
	if err != nil {
		return fmt.Errorf("listen to the autoscaler: %w", err)
	}
	r.sub = sub
	return nil
}

func (r *rest) hear(msg *nats.Msg) {
	asked, err := queue.ParseRest(msg.Data)
	if err != nil {
		r.log.Warn().Err(err).Msg("drop a word of the autoscaler")
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if asked.HandOver > 0 {
		r.handOverLocked(asked.HandOver)
		return
	}
	if asked.Lease < r.lease {
		r.log.Info().Uint64("lease", asked.Lease).Uint64("newest", r.lease).Msg("drop a word of an autoscaler that was replaced")
		return
	}
	r.lease = asked.Lease
	if r.wake != nil {
		r.wake.Stop()
	}
	if asked.For <= 0 {
		r.endLocked()
		return
	}
	r.wake = time.AfterFunc(min(asked.For, maxRest), r.expire)
	r.asked = true
	r.pauseLocked()
}

func (r *rest) handOverLocked(within time.Duration) {
	r.overUntil = time.Now().Add(min(within, maxRest))
	select {
	case r.over <- struct{}{}:
	default: // it was told already
	}
}

// handOver waits until the worker is asked to hand over its calls, also when that was a moment ago. It returns false when the context
// ends before.
func (r *rest) handOver(ctx context.Context) bool {
	for {
		select {
		case <-r.over:
		case <-ctx.Done():
			return false
		}
		r.mu.Lock()
		holds := time.Now().Before(r.overUntil)
		r.mu.Unlock()
		if holds {
			return true
		}
	}
}

// serve starts the pulling, or the rest that was asked for meanwhile.
func (r *rest) serve(puller *queue.Puller) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.puller = puller
	if r.asked {
		r.pauseLocked()
	}
	return puller.Start()
}

func (r *rest) pauseLocked() {
	if r.puller == nil {
		return
	}
	quiet := r.puller.Pause()
	if quiet == nil {
		return
	}
	r.pauses++
	pause := r.pauses
	r.waiting.Go(func() {
		select {
		case <-quiet:
			r.settle(pause)
		case <-r.closed:
		}
	})
}

// settle notes that no call is on its way any more, and tells, unless the pause ended meanwhile.
func (r *rest) settle(pause int) {
	r.mu.Lock()
	r.quiet = r.asked && pause == r.pauses
	r.mu.Unlock()
	r.changed()
}

func (r *rest) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked()
}

func (r *rest) endLocked() {
	if !r.asked {
		return
	}
	r.asked, r.quiet = false, false
	if r.puller != nil {
		if err := r.puller.Resume(); err != nil {
			r.log.Warn().Err(err).Msg("pull again after a rest; the puller repairs itself")
		}
	}
	r.changed()
}

// tell puts the rest into a heartbeat. A worker that rests counts as draining for whoever looks for free slots.
func (r *rest) tell(beat *queue.Heartbeat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked && (beat.State == queue.StateReady || beat.State == queue.StateBusy) {
		beat.State, beat.Reason = queue.StateDraining, "not needed: the autoscaler asked it to rest"
		beat.Resting = r.quiet
	}
}

func (r *rest) close() {
	_ = r.sub.Unsubscribe() // fails only on a closed connection
	r.mu.Lock()
	if r.wake != nil {
		r.wake.Stop()
	}
	close(r.closed)
	r.mu.Unlock()
	r.waiting.Wait()
}
