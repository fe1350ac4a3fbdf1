package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
)

// Timing of the safety net under waiting calls.
const (
	// lookEvery is how often the stored result of a waiting call is looked for: replies travel over core NATS, which
	// drops what finds nobody connected.
	lookEvery = 2 * time.Second
	// takeWithin is how long the queue may take to confirm a call, publishing again included: longer than its servers may take to
	// choose a leader after one was killed, 4 to 9 s.
	takeWithin = 20 * time.Second
	// againAfter is the pause before what the queue did not take is published again: its servers choose a leader in some hundred
	// milliseconds.
	againAfter = 100 * time.Millisecond
)

// lookups is the last token of the reply subject for looked-up results, in place of a call id.
const lookups = "stored"

// receive takes everything that is sent to this gateway's reply subjects: the queue's confirmations, the workers'
// results, and stored results that a sweep asked for. All of one call arrive here, on one subscription.
func (x *exchange) receive(msg *nats.Msg) {
	if sender, call, ok := queue.ParseStored(msg.Subject); ok {
		x.receiveStored(call, sender, msg)
		return
	}
	call := queue.CallOfReply(msg.Subject)
	if call == lookups {
		call = queue.CallOf(msg.Header)
	}
	switch {
	case call == "":
		return // the end of a list of looked-up results
	case queue.CallOf(msg.Header) == call && queue.Provisional(msg.Header):
		x.waiters.hold(call, queue.SenderOf(msg.Header), msg)
	case queue.CallOf(msg.Header) == call:
		if !x.waiters.finish(call, signal{result: msg}) {
			x.log.Debug().Str("call", call).Msg("result for nobody: its caller has gone")
		}
	default:
		x.receiveAck(call, msg)
	}
}

// receiveStored takes the word on a result that was to be stored. When it is not, another result stands or the worker tries
// again; looking finds the one that is.
func (x *exchange) receiveStored(call, sender string, msg *nats.Msg) {
	if queue.Published(msg) == nil {
		x.waiters.confirm(call, sender)
		return
	}
	x.waiters.lookSoon(call)
}

// receiveAck takes the queue's word on a published call.
func (x *exchange) receiveAck(call string, msg *nats.Msg) {
	err := queue.Published(msg)
	var refused *jetstream.APIError
	switch {
	case err == nil:
		x.waiters.acked(call)
	case errors.Is(err, nats.ErrNoResponders): // it has no leader just now, or is being set up
		x.waiters.again(call)
	case errors.As(err, &refused) && refused.ErrorCode != streamStoreFailed:
		x.log.Debug().Err(err).Str("call", call).Msg("the queue did not take a call; trying again")
		x.waiters.again(call)
	case errors.As(err, &refused):
		x.waiters.finish(call, signal{err: refusal(refused)})
	default:
		x.log.Warn().Err(err).Str("call", call).Msg("drop a reply that is neither result nor confirmation")
	}
}

// insist publishes until the queue has the message or refuses it for good, or the context ends.
func insist(ctx context.Context, x *exchange, msg *nats.Msg) (*jetstream.PubAck, error) {
	for {
		once, cancel := context.WithTimeout(ctx, lookEvery)
		ack, err := x.js.PublishMsg(once, msg) // the queue drops what it has already
		cancel()
		if err == nil {
			return ack, nil
		}
		var refused *jetstream.APIError
		if errors.As(err, &refused) && refused.ErrorCode == streamStoreFailed || !x.nc.IsConnected() {
			return nil, err
		}
		select {
		case <-time.After(againAfter):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// streamStoreFailed is the server's code when a stream's limits do not allow another message.
const streamStoreFailed jetstream.ErrorCode = 10077

func refusal(err *jetstream.APIError) *problem {
	if err.ErrorCode == streamStoreFailed {
		return &problem{
			Kind: kindQueueFull, Message: "the function's queue is full; try again later", cause: err, retryAfter: time.Second,
		}
	}
	return unavailable("the queue did not take the call; try again", err)
}

// watchReplies is the safety net: it looks for stored results of waiting calls, all together, every now and then and
// after each reconnect.
func (x *exchange) watchReplies(ctx context.Context) {
	connected := x.nc.StatusChanged(nats.CONNECTED)
	defer x.nc.RemoveStatusListener(connected)
	ticker := time.NewTicker(lookEvery / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-connected:
			x.sweep(0)
		case <-ticker.C:
			x.sweep(lookEvery)
		}
	}
}

// sweep looks for the results of calls that were not looked for in the given time.
func (x *exchange) sweep(age time.Duration) {
	if !x.nc.IsConnected() {
		return
	}
	now := time.Now()
	d := x.waiters.sweep(now, now.Add(-age), now.Add(-takeWithin))
	reply := queue.ReplySubject(x.id, lookups)
	for start := 0; start < len(d.look); start += queue.MaxLookup {
		batch := d.look[start:min(start+queue.MaxLookup, len(d.look))]
		if err := queue.RequestResults(x.nc, batch, reply); err != nil {
			x.log.Warn().Err(err).Msg("look for results")
			return
		}
	}
	for _, call := range d.lost {
		x.waiters.finish(call, signal{err: unavailable("the queue did not confirm the call in "+takeWithin.String()+
			"; it may still run: try again with an Idempotency-Key to run it once", nil)})
	}
}
