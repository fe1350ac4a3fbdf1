package supervisor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// batches gives a function's calls to its guest together. Each call keeps its own handler: it joins the batch that forms, and waits
// there for its own outcome. As many batches run at once as the function's concurrency says; the next one forms meanwhile.
type batches struct {
	*calls

	most int           // calls of a batch
	wait time.Duration // of its first call
	room chan struct{} // holds a token for each batch that runs

	mu      sync.Mutex
	forming *batch        // nil when no call waits
	last    uint64        // the newest batch's number
	hurried bool          // nobody is waited for any more
	hasty   chan struct{} // closed then
}

// batch is calls that run together, or will.
type batch struct {
	number  uint64
	full    chan struct{} // closed when it has as many members as a batch may have
	begun   chan struct{} // closed when the guest has all of them
	members []*member
	// running counts each call twice: until the guest has ended it, and until its own handler knows how.
	running  sync.WaitGroup
	deadline time.Time // of those that run
	wanted   int       // those whose callers wait since it began
	left     bool      // that one was cancelled since
}

// member is a call in a batch.
type member struct {
	*queue.Delivery

	call   *running
	number uint64
	began  time.Time
	// large is an input that follows by a stream, of size bytes; refused is set when it cannot be had.
	large   *blobs.PayloadReader
	size    int64
	refused *outcome
}

// newBatches is nil for a function that gets each call alone.
func newBatches(c *calls) *batches {
	batching := c.task.Config.Batching
	if batching.MaxSize == 0 {
		return nil
	}
	return &batches{
		calls: c, most: batching.MaxSize, wait: batching.Wait.Std(), room: make(chan struct{}, c.task.Config.Concurrency),
		hasty: make(chan struct{}),
	}
}

// hurry lets batches begin with the calls that they have: no more will come.
func (b *batches) hurry() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.hurried {
		b.hurried = true
		close(b.hasty)
	}
}

// attempt runs the call in the batch that forms, or alone where an earlier attempt of it may have killed its worker.
func (b *batches) attempt(ctx context.Context, d *queue.Delivery) outcome {
	joined := time.Now()
	values := b.values(ctx, d)
	own := &member{Delivery: d, call: &running{id: d.Call, attempt: d.Attempt, done: make(chan outcome, 1)}}
	in := b.join(ctx, own, b.suspect(ctx, d))
	if reason := b.awaitStart(in, own); reason != nil {
		return outcome{err: reason, gathered: time.Since(joined)}
	}
	defer in.running.Done()
	end := b.awaitEnd(in, own)
	end.gathered = own.began.Sub(joined)
	return values.end(values.only(end))
}

// awaitEnd waits until a call of a batch that runs has ended for its caller.
func (b *batches) awaitEnd(in *batch, own *member) outcome {
	if own.refused != nil {
		b.leave(in, false)
		return *own.refused
	}
	var end outcome
	select {
	case end = <-own.call.done:
		b.leave(in, false)
	case <-own.Cancelled():
		b.guest.cancel(own.number, own.call, cancelled())
		b.leave(in, true)
		end = <-own.call.done
	}
	return b.guest.moved(own.call, in.deadline, end)
}

// join puts a call into the batch that forms, or a suspect one into a batch of its own. The first of a batch sees to its run.
func (b *batches) join(ctx context.Context, own *member, alone bool) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if alone || b.forming == nil {
		b.last++
		in := &batch{number: b.last, full: make(chan struct{}), begun: make(chan struct{}), members: []*member{own}}
		if !alone {
			b.forming = in
		}
		if alone || b.most == 1 {
			b.closeLocked(in)
		}
		b.calls.running.Go(func() { b.run(ctx, in, alone) })
		return in
	}
	in := b.forming
	in.members = append(in.members, own)
	if len(in.members) == b.most {
		b.closeLocked(in)
	}
	return in
}

// closeLocked lets no more calls join a batch.
func (b *batches) closeLocked(in *batch) {
	close(in.full)
	if b.forming == in {
		b.forming = nil
	}
}

// awaitStart waits until the call's batch begins. A call that is cancelled, or whose time is over, leaves before.
func (b *batches) awaitStart(in *batch, own *member) *wire.Error {
	var late <-chan time.Time
	if !own.Deadline.IsZero() {
		timer := time.NewTimer(time.Until(own.Deadline))
		defer timer.Stop()
		late = timer.C
	}
	var reason *wire.Error
	select {
	case <-in.begun:
		return nil
	case <-own.Cancelled():
		reason = cancelled()
	case <-late:
		reason = &wire.Error{Kind: wire.KindExpired, Message: "the call's deadline passed before its batch began"}
	}
	b.mu.Lock()
	began := !own.began.IsZero()
	if !began {
		in.members = slices.DeleteFunc(in.members, func(m *member) bool { return m == own })
	}
	b.mu.Unlock()
	if !began {
		return reason
	}
	<-in.begun // at the same moment: the guest is told, once it has the call
	return nil
}

// run gathers a batch, gives it to the guest once there is room, and waits until the guest has ended every call of it.
func (b *batches) run(ctx context.Context, in *batch, alone bool) {
	b.gather(in)
	if alone {
		b.suspects.Lock()
		defer b.suspects.Unlock()
	} else {
		b.suspects.RLock()
		defer b.suspects.RUnlock()
	}
	b.room <- struct{}{}
	defer func() { <-b.room }()
	b.begin(in)
	limit := b.task.Config.Timeout.Std()
	in.deadline = time.Now().Add(limit)
	members := b.takeInputs(ctx, in.members)
	in.running.Add(len(members))
	for _, m := range members {
		m.number = b.guest.send(m.call, wire.Call{
			ID: m.Call, Method: m.Method, Attempt: m.Attempt, Deadline: in.deadline, ContentType: m.ContentType,
			Traceparent: m.Traceparent, Large: m.size, Batch: &wire.Batch{Number: in.number, Size: len(members)},
		}, m.Body, m.large)
	}
	close(in.begun)
	timer := time.AfterFunc(time.Until(in.deadline), func() { b.stopAll(members, timedOut(limit)) })
	defer timer.Stop()
	in.running.Wait()
}

// takeInputs opens the large inputs of a batch and returns the calls that have theirs.
func (b *batches) takeInputs(ctx context.Context, members []*member) []*member {
	var opening sync.WaitGroup
	for _, m := range members {
		if m.Payload != nil {
			opening.Go(func() { m.large, m.size, m.refused = b.guest.takeInput(ctx, m.Payload) })
		}
	}
	opening.Wait()
	return slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m.refused != nil })
}

// gather returns when a batch is full, or its first call has waited long enough and there may be room.
func (b *batches) gather(in *batch) {
	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	select {
	case <-in.full:
	case <-timer.C:
	case <-b.hasty:
	case <-b.guest.dead:
	}
}

// begin closes a batch: those who are still in it are run.
func (b *batches) begin(in *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-in.full:
	default:
		b.closeLocked(in)
	}
	now := time.Now()
	for _, m := range in.members {
		m.began, m.call.batch = now, &in.running
	}
	in.wanted = len(in.members)
	in.running.Add(len(in.members))
}

// leave takes a call out of a running batch, which runs on for the others. One that nobody wants any more must end soon.
func (b *batches) leave(in *batch, cancelled bool) {
	b.mu.Lock()
	in.wanted--
	in.left = in.left || cancelled
	unwanted := in.wanted == 0 && in.left
	b.mu.Unlock()
	if unwanted {
		time.AfterFunc(cancelGrace, func() { b.checkEnded(in.members) })
	}
}

// stopAll ends a batch for all its callers at once, and gives the guest a moment to end it too.
func (b *batches) stopAll(members []*member, reason *wire.Error) {
	for _, m := range members {
		b.guest.cancel(m.number, m.call, reason)
	}
	select {
	case <-time.After(cancelGrace):
		b.checkEnded(members)
	case <-b.guest.dead:
	}
}

// checkEnded gives the worker up if the guest still runs a call that nobody wants.
func (b *batches) checkEnded(members []*member) {
	for _, m := range members {
		if !b.guest.ended(m.number) {
			b.getStuck(fmt.Sprintf("%s (of a batch of %d)", m.Call, len(members)))
			return
		}
	}
}
