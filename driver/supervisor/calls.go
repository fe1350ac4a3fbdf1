package supervisor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// cancelGrace is how long a guest may take to end a call that was cancelled before its worker counts as stuck.
	cancelGrace = 2 * time.Second
	// lostAttempts is how many deliveries beyond its retries a call gets whose workers end before they say how it went. It
	// is generous because most such calls are innocent: they waited while others that crash their workers were found out.
	lostAttempts = 20
	// loadWait bounds the look for an earlier result.
	loadWait = 2 * time.Second
)

// calls runs the calls that a worker takes, and ends each with a stored result or its return to the queue.
type calls struct {
	task    handoff.Task
	log     zerolog.Logger
	nc      *nats.Conn
	js      jetstream.JetStream
	puller  *queue.Puller
	results *queue.Store
	guest   *guest
	batches *batches // nil where each call runs alone
	beats   *heartbeats
	ready   time.Time

	// flying are the calls that run here, each with its newest delivery: after an outage the server delivers again what was
	// never lost.
	mu     sync.Mutex
	flying map[string]*queue.Delivery

	// suspects is held by a call that runs alone because an earlier attempt of it may have killed its worker; ordinary calls
	// share it.
	suspects sync.RWMutex
	running  sync.WaitGroup
	done     atomic.Int64
	failed   atomic.Int64

	// recycle is closed when a call that does not end makes the worker useless; stuck says which.
	recycle     chan struct{}
	recycleOnce sync.Once
	stuck       string
	// over says that the worker's calls are handed over: what the end of its guest makes of them does not count.
	over atomic.Bool
}

// handle brings one attempt of a call to its end: a stored result, or the call's return to the queue.
func (c *calls) handle(ctx context.Context, d *queue.Delivery) {
	defer c.beats.changed()
	if !c.hold(d) {
		return
	}
	if d.Attempt > 1 || d.Again {
		stored, err := c.load(ctx, d.Call)
		if err == nil {
			c.answer(ctx, d, stored) // an earlier attempt ended it, and its acknowledgement was lost
			return
		}
		if !errors.Is(err, queue.ErrNoResult) {
			c.log.Warn().Err(err).Str("call", d.Call).Msg("look for an earlier result; running the call")
		}
	}
	result := queue.Result{
		Call: d.Call, Attempt: d.Attempt, Worker: c.task.Identity.Alloc, Keep: d.Keep,
	}
	result.Started, result.Queued = c.waited(d)
	if refused := c.refuse(d); refused != nil {
		result.Error = refused
		c.finish(ctx, d, result)
		return
	}
	began := time.Now()
	end := c.attempt(ctx, d)
	if c.over.Load() && end.died() {
		end = outcome{unsent: true}
	}
	result.Run = time.Since(began) - end.gathered
	result.Queued += end.gathered
	result.Error, result.ContentType, result.Body, result.Yields = end.err, end.contentType, end.body, end.yields
	result.Payload = end.payload
	c.record(d, result, end)
	if delay, again := c.again(ctx, d, end); again {
		c.log.Info().Str("call", d.Call).Int("attempt", d.Attempt).Dur("delay", delay).AnErr("cause", end.err).Msg("call goes back to the queue")
		if err := c.release(d).Return(delay); err != nil {
			c.log.Warn().Err(err).Str("call", d.Call).Msg("return call; its delivery will run out")
		}
		return
	}
	c.finish(ctx, d, result)
}

// hold registers a call as running here. One that does already keeps running, and is settled by its newest delivery.
func (c *calls) hold(d *queue.Delivery) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	older, runs := c.flying[d.Call]
	c.flying[d.Call] = d
	if runs {
		c.log.Info().Str("call", d.Call).Int("attempt", d.Attempt).Msg("call was delivered again while it runs here")
		d.Follow(older)
		older.Drop()
	}
	return !runs
}

// release ends hold and returns the delivery to settle.
func (c *calls) release(d *queue.Delivery) *queue.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	newest, ok := c.flying[d.Call]
	if !ok {
		return d // it was answered without running
	}
	delete(c.flying, d.Call)
	return newest
}

// waited splits the time before the call came here into waiting for this worker's start and waiting in the queue.
func (c *calls) waited(d *queue.Delivery) (start, queued time.Duration) {
	total := max(d.Received.Sub(d.Published), 0)
	from, to := d.Published, c.ready
	if c.task.Started.After(from) {
		from = c.task.Started
	}
	start = min(max(to.Sub(from), 0), total)
	return start, total - start
}

// attempt runs the call in the guest, within its timeout.
func (c *calls) attempt(ctx context.Context, d *queue.Delivery) outcome {
	if c.batches != nil {
		return c.batches.attempt(ctx, d)
	}
	if c.suspect(ctx, d) {
		c.suspects.Lock()
		defer c.suspects.Unlock()
	} else {
		c.suspects.RLock()
		defer c.suspects.RUnlock()
	}
	limit := c.task.Config.Timeout.Std()
	deadline := time.Now().Add(limit)
	large, size, refused := c.guest.takeInput(ctx, d.Payload)
	if refused != nil {
		return *refused
	}
	values := c.values(ctx, d)
	number, call := c.guest.begin(wire.Call{
		ID: d.Call, Method: d.Method, Attempt: d.Attempt, Deadline: deadline,
		ContentType: d.ContentType, Traceparent: d.Traceparent, Stream: d.Stream, Large: size,
	}, d.Body, large, values.take())
	timer := time.AfterFunc(time.Until(deadline), func() { c.stop(number, call, timedOut(limit)) })
	defer timer.Stop()
	select {
	case end := <-call.done:
		return values.end(c.guest.moved(call, deadline, end))
	case <-d.Cancelled():
		time.AfterFunc(0, func() { c.stop(number, call, cancelled()) })
		return values.end(c.guest.moved(call, deadline, <-call.done))
	}
}

// suspect calls run alone: their worker died while others ran beside them, and which of them did it is known only of a call
// that runs alone. One that may be marked counts as marked.
func (c *calls) suspect(ctx context.Context, d *queue.Delivery) bool {
	if d.Attempt <= c.unmarked() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, loadWait)
	defer cancel()
	marked, err := queue.Suspect(ctx, c.js, d.Call)
	if err != nil {
		c.log.Warn().Err(err).Str("call", d.Call).Msg("running the call alone")
		return true
	}
	return marked
}

// unmarked is how many attempts of a call are never marked: those that retries allow may end their workers without a doubt on others,
// but a batch would be ended as a whole each time.
func (c *calls) unmarked() int {
	if c.batches != nil {
		return 1
	}
	return 1 + c.task.Config.Retries.Max
}

// mark makes a call suspect for whoever runs it next.
func (c *calls) mark(ctx context.Context, d *queue.Delivery) {
	ctx, cancel := context.WithTimeout(ctx, loadWait)
	defer cancel()
	if err := queue.MarkSuspect(ctx, c.js, d.Call); err != nil {
		c.log.Warn().Err(err).Str("call", d.Call).Msg("the call may end its next worker too")
	}
}

// stop ends a call for its caller at once and gives the guest a moment to end it too.
func (c *calls) stop(number uint64, call *running, reason *wire.Error) {
	c.guest.cancel(number, call, reason)
	select {
	case <-time.After(cancelGrace):
	case <-c.guest.dead:
		return
	}
	if !c.guest.ended(number) {
		c.getStuck(call.id)
	}
}

// finish keeps a dead call with its input, stores the result, tells the caller and takes the call off the queue, in this order: a crash in between repeats a
// step and loses nothing.
func (c *calls) finish(ctx context.Context, d *queue.Delivery, result queue.Result) {
	err := c.bury(ctx, d, result.Error)
	stands := result
	if err == nil {
		stands, err = c.results.Put(ctx, result, d.Reply)
	}
	if err != nil {
		c.log.Error().Err(err).Str("call", d.Call).Msg("store result; the call goes back to the queue")
		if err := c.release(d).Return(0); err != nil {
			c.log.Warn().Err(err).Str("call", d.Call).Msg("return call; its delivery will run out")
		}
		return
	}
	c.settle(ctx, d, stands)
}

// answer sends a result that an earlier attempt stored.
func (c *calls) answer(ctx context.Context, d *queue.Delivery, result queue.Result) {
	if d.Reply != "" {
		if err := c.results.Tell(result, d.Reply); err != nil {
			c.log.Warn().Err(err).Str("call", d.Call).Msg("reply; the gateway will find the stored result")
		}
	}
	c.settle(ctx, d, result)
}

// settle takes a call off the queue whose result is stored, once its end is announced to who wants to know.
func (c *calls) settle(ctx context.Context, d *queue.Delivery, result queue.Result) {
	announcing, cancel := context.WithTimeout(ctx, buryWait)
	err := queue.AnnounceEnd(announcing, c.js, d.Envelope)
	cancel()
	if err != nil {
		c.log.Warn().Err(err).Str("call", d.Call).Msg("the call goes back to the queue; its result is stored")
		if err := c.release(d).Return(time.Second); err != nil {
			c.log.Warn().Err(err).Str("call", d.Call).Msg("return call; its delivery will run out")
		}
		return
	}
	c.done.Add(1)
	if result.Error != nil {
		c.failed.Add(1)
	}
	if err := c.release(d).Ack(); err != nil {
		c.log.Warn().Err(err).Str("call", d.Call).Msg("acknowledge; the call's result is stored")
	}
}

// load reads a call's stored result.
func (c *calls) load(ctx context.Context, call string) (queue.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, loadWait)
	defer cancel()
	return queue.LoadResult(ctx, c.js, call)
}

// answerWait bounds how long a worker that does not start answers those who wait for it, answerMost how many.
const (
	answerWait = 2 * time.Second
	answerMost = 1000
)

// answerWaiting tells the callers whose calls wait that the function's own code does not start: a broken deploy must answer,
// not hang. Faults of the platform are not the callers' to see: Nomad tries again, here or elsewhere.
func (c *calls) answerWaiting(ctx context.Context, cause error) {
	reason := &wire.Error{}
	if !errors.As(cause, &reason) {
		return
	}
	failed := time.Now()
	if err := c.puller.Start(); err != nil {
		return
	}
	defer c.puller.Stop()
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	for range answerMost {
		idle, stop := context.WithTimeout(ctx, answerWait/4)
		d, err := c.puller.Next(idle)
		stop()
		if err != nil || d.Published.After(failed) {
			return // the puller's close gives the last one back
		}
		c.finish(ctx, d, queue.Result{
			Call: d.Call, Attempt: d.Attempt, Worker: c.task.Identity.Alloc, Keep: d.Keep,
			Error: &wire.Error{Kind: wire.KindStart, Type: reason.Type, Message: "the function does not start: " + reason.Message, Traceback: reason.Traceback},
		})
	}
}

// getStuck marks the worker as useless because of a call.
func (c *calls) getStuck(call string) {
	c.recycleOnce.Do(func() {
		c.stuck = call
		close(c.recycle)
	})
}
