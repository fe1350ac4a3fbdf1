package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

func timedOut(limit time.Duration) *wire.Error {
	return &wire.Error{Kind: wire.KindTimeout, Message: fmt.Sprintf("the call took longer than the function's timeout of %s", limit)}
}

func cancelled() *wire.Error {
	return &wire.Error{Kind: wire.KindCancelled, Message: "the call was cancelled"}
}

// refuse ends calls that must not run.
func (c *calls) refuse(d *queue.Delivery) *wire.Error {
	select {
	case <-d.Cancelled():
		return cancelled()
	default:
	}
	if !d.Deadline.IsZero() && time.Now().After(d.Deadline) {
		return &wire.Error{Kind: wire.KindExpired, Message: "the call's deadline passed before a worker took it"}
	}
	most := c.task.Config.QueueTimeout.Std()
	if waited := d.Received.Sub(d.Published); most > 0 && d.Try() == 1 && waited > most {
		return &wire.Error{Kind: wire.KindExpired, Message: fmt.Sprintf(
			"the call waited %s for a worker, longer than the function's queue_timeout of %s", waited.Round(time.Millisecond), most)}
	}
	if limit := 1 + c.task.Config.Retries.Max + lostAttempts; d.Try() > limit {
		return &wire.Error{Kind: wire.KindLost, Message: fmt.Sprintf("%d workers in a row ended while they held this call", limit)}
	}
	return nil
}

// again decides whether a failed attempt is followed by another one, and when.
func (c *calls) again(ctx context.Context, d *queue.Delivery, end outcome) (time.Duration, bool) {
	failed, retries := end.err, c.task.Config.Retries
	if end.unsent {
		return 0, true
	}
	if failed == nil {
		return 0, false
	}
	switch failed.Kind {
	case wire.KindInput, wire.KindPayload, wire.KindCancelled, wire.KindExpired:
		return 0, false
	}
	died := end.died()
	if died && c.batches != nil && !c.guest.alone {
		c.mark(ctx, d)
	}
	if d.Try() <= retries.Max && retries.Wants(failed.Kind) {
		return retries.Delay(d.Try()), true
	}
	if !died || c.guest.alone {
		return 0, false
	}
	if c.batches == nil {
		c.mark(ctx, d)
	}
	return 0, true
}

// died says that the attempt ended with its guest.
func (o outcome) died() bool {
	return o.err != nil && (o.err.Kind == wire.KindCrash || o.err.Kind == wire.KindMemory || o.err.Kind == wire.KindProtocol)
}

// record keeps why an attempt failed. One that never reached its guest is none.
func (c *calls) record(d *queue.Delivery, result queue.Result, end outcome) {
	if end.err == nil || end.unsent {
		return
	}
	err := queue.RecordAttempt(c.nc, d.Call, queue.FailedAttempt{
		Attempt: d.Attempt, Worker: result.Worker, Ended: time.Now(), Took: result.Run, Error: *end.err,
	})
	if err != nil {
		c.log.Warn().Err(err).Str("call", d.Call).Msg("record attempt")
	}
}

// buryWait bounds how long a dead call's input may take to be kept, and a call's end to be announced.
const buryWait = 5 * time.Second

// bury keeps a call that could not be done, with its input.
func (c *calls) bury(ctx context.Context, d *queue.Delivery, reason *wire.Error) error {
	if reason == nil || !queue.Dead(d.Envelope, reason) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, buryWait)
	defer cancel()
	dead := queue.DeadCall{Envelope: d.Envelope, Reason: *reason}
	dead.Attempt = d.Attempt
	return queue.Bury(ctx, c.js, dead)
}

// values are what a call yields. A nil one is of a call whose values nobody wants.
type values struct{ *queue.Yields }

func (c *calls) values(ctx context.Context, d *queue.Delivery) values {
	if !d.Stream {
		return values{}
	}
	return values{c.results.Yields(ctx, d.Call)}
}

// take is where the guest's values go.
func (v values) take() func(meta wire.Result, value []byte) error {
	if v.Yields == nil {
		return nil
	}
	return func(meta wire.Result, value []byte) error { return v.Put(meta.ContentType, value) }
}

// only makes the output of a call that has no other values the one value of it.
func (v values) only(end outcome) outcome {
	switch {
	case v.Yields == nil || end.err != nil:
		return end
	case end.payload != nil:
		return outcome{err: &wire.Error{
			Kind: wire.KindUser, Type: "output", Message: fmt.Sprintf("a value has %d bytes: use at most %d, or call the function without asking for its values", end.payload.Size, queue.MaxInline),
		}}
	}
	if err := v.Put(end.contentType, end.body); err != nil {
		return outcome{err: &wire.Error{Kind: wire.KindLost, Message: "the call's value could not be stored: " + err.Error()}}
	}
	end.contentType, end.body = "", nil
	return end
}

// end waits until the values are stored: whoever reads the result may count on them.
func (v values) end(end outcome) outcome {
	if v.Yields == nil {
		return end
	}
	count, err := v.Flush()
	if err != nil && end.err == nil {
		end.err = &wire.Error{Kind: wire.KindLost, Message: "the values that the call yielded could not be stored: " + err.Error()}
	}
	end.yields = count
	return end
}
