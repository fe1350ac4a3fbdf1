package queue

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	headerIndex = "Freshet-Index"
	// YieldWindow is how many values of a call may be on their way to the stream: they may be stored out of order by so many.
	YieldWindow = 256
	// yieldWait is how long the server may take to store a value before it is sent again.
	yieldWait = 5 * time.Second
	// yieldAgain is the pause before a value is sent again.
	yieldAgain = 250 * time.Millisecond
	// yieldTries is how often it is sent again: for some seconds, or minutes when nobody answers.
	yieldTries = 30
)

// Yields stores what one call yields, value by value. Put is for one goroutine; Flush comes after the last Put.
type Yields struct {
	ctx  context.Context //nolint:containedctx // it lives as long as the call does
	js   jetstream.JetStream
	call string
	next int
	sent []jetstream.PubAckFuture
}

// Yields begins the values of a call. An attempt that yields what an earlier one did stores nothing twice.
func (s *Store) Yields(ctx context.Context, call string) *Yields {
	return &Yields{ctx: ctx, js: s.js, call: call}
}

// Put sends a value. It waits while too many are on their way.
func (y *Yields) Put(contentType string, value []byte) error {
	index := strconv.Itoa(y.next)
	msg := &nats.Msg{Subject: YieldsSubject(y.call), Data: value, Header: nats.Header{
		headerIndex: {index}, nats.MsgIdHdr: {y.call + "." + index},
	}}
	set(msg.Header, headerContentType, contentType)
	if len(y.sent) == YieldWindow {
		if err := y.settle(y.sent[0]); err != nil {
			return err
		}
		y.sent = y.sent[1:]
	}
	future, err := y.js.PublishMsgAsync(msg)
	if err != nil {
		return fmt.Errorf("store value %d of call %s: %w", y.next, y.call, err)
	}
	y.sent = append(y.sent, future)
	y.next++
	return nil
}

// Flush waits until all values are stored and tells how many there are.
func (y *Yields) Flush() (int, error) {
	for _, future := range y.sent {
		if err := y.settle(future); err != nil {
			return y.next, err
		}
	}
	y.sent = nil
	return y.next, nil
}

// settle waits until a value is stored, and sends it again when it was not.
func (y *Yields) settle(future jetstream.PubAckFuture) error {
	var err error
	select {
	case <-future.Ok():
		return nil
	case err = <-future.Err():
	case <-y.ctx.Done():
		return y.ctx.Err()
	}
	for range yieldTries {
		select {
		case <-time.After(yieldAgain):
		case <-y.ctx.Done():
			return y.ctx.Err()
		}
		if _, err = y.js.PublishMsg(y.ctx, future.Msg()); err == nil {
			return nil
		}
	}
	return fmt.Errorf("store a value of call %s: %w", y.call, err)
}

// Value is what a call yielded.
type Value struct {
	// Index counts the call's values from 0.
	Index       int
	ContentType string
	Body        []byte
	Time        time.Time
}

// ValueIndex is the index of the value that a message of YieldsStream carries.
func ValueIndex(h nats.Header) int {
	index, err := number(h, headerIndex, 0, maxNanos)
	if err != nil {
		return 0 // reading the stream will say so
	}
	return index
}

// ReadValues reads a page of a call's values. They are in order but for YieldWindow of them, and none comes twice within the
// minutes that the server remembers them. It returns the sequence to go on from.
func ReadValues(ctx context.Context, nc *nats.Conn, call string, from uint64) ([]Value, uint64, error) {
	page, err := Read(ctx, nc, Query{Stream: YieldsStream, Subject: YieldsSubject(call), From: from, Limit: YieldWindow})
	if err != nil {
		return nil, from, fmt.Errorf("read values of call %s: %w", call, err)
	}
	list := make([]Value, 0, len(page.Messages))
	for _, msg := range page.Messages {
		index, err := number(msg.Header, headerIndex, 0, maxNanos)
		if err != nil {
			return nil, from, err
		}
		list = append(list, Value{Index: index, ContentType: get(msg.Header, headerContentType), Body: msg.Data, Time: msg.Time})
		from = msg.Sequence + 1
	}
	return list, from, nil
}
