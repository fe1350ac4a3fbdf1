package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/freshet-dev/freshet/internal/queue"
)

const (
	// keepKeyed is how long the result of a call with a key is kept: as long as the key, or a late retry would run again.
	keepKeyed = 24 * time.Hour
	// freshFor is how long after a call's first publishing another publishing is dropped by the queue for certain; it
	// remembers ids for two minutes.
	freshFor = 100 * time.Second
)

// keyName is the name under which an idempotency key is stored: fixed in length and alphabet, whatever the caller chose.
func keyName(function queue.Function, key string) string {
	h := sha256.New()
	for _, part := range []string{function.Namespace, function.App, function.Name, key} {
		_, _ = fmt.Fprintf(h, "%d:", len(part)) // a hash never fails; the lengths keep ("ab", "c") and ("a", "bc") apart
		_, _ = io.WriteString(h, part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// takeOnce runs a call with an idempotency key: the first request with the key makes the call, every other one waits
// for that call's result, in whichever gateway it arrives.
func (x *exchange) takeOnce(ctx context.Context, c *call, s *stores) (queue.Result, error) {
	e := &c.envelope
	e.Keep = keepKeyed
	name := keyName(e.Function, e.IdempotencyKey)
	known, err := x.claim(ctx, s, name, e, e.Call)
	if err != nil {
		return queue.Result{}, err
	}
	if !known {
		return x.ask(ctx, c)
	}
	return x.join(ctx, c, s)
}

// claim makes the id given the call's, unless another request with the same key was first: then that call's id is, and known is
// true. The same key with another input is refused.
func (x *exchange) claim(ctx context.Context, s *stores, name string, e *queue.Envelope, id string) (known bool, err error) {
	print := fingerprint(e)
	_, err = s.keys.Create(ctx, name, []byte(id+" "+print))
	if err == nil {
		e.Call = id
		return false, nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return false, unavailable("the idempotency key cannot be stored; try again", err)
	}
	entry, err := s.keys.Get(ctx, name)
	if err != nil {
		return false, unavailable("the idempotency key cannot be read; try again", err)
	}
	id, first, _ := strings.Cut(string(entry.Value()), " ")
	if first != print {
		return false, &problem{Kind: kindConflict, Message: fmt.Sprintf(
			"header Idempotency-Key: %q was used for another input within a day; use a new key for a new call", e.IdempotencyKey)}
	}
	e.Call = id
	x.payloads.joined(ctx, e)
	return true, nil
}

// fingerprint tells one input from another, whether it travels in the message or not.
func fingerprint(e *queue.Envelope) string {
	const size = 8
	if e.Payload != nil {
		return e.Payload.Sum[:hex.EncodedLen(size)]
	}
	sum := sha256.Sum256(e.Body)
	return hex.EncodeToString(sum[:size])
}

// join waits for a call that another request made, perhaps in a gateway that is gone.
func (x *exchange) join(ctx context.Context, c *call, s *stores) (queue.Result, error) {
	e := &c.envelope
	w := x.waiters.add(e.Function, e.Call, time.Now(), time.Until(e.Deadline)+lastWord)
	defer x.waiters.remove(w)
	// The result itself goes to the first request's gateway. Its storing is seen here, and wakes this request.
	wake := func(*nats.Msg) { x.waiters.hint(w, e.Call, signal{look: true}) }
	sub, err := x.nc.Subscribe(queue.ResultSubject(e.Call), wake)
	if err != nil {
		return queue.Result{}, unavailable("the queue cannot be reached; try again", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	result, err := queue.LoadResultFrom(ctx, s.results, e.Call)
	if err == nil {
		return result, nil
	}
	if !errors.Is(err, queue.ErrNoResult) {
		return queue.Result{}, unavailable("the call's result cannot be read; try again", err)
	}
	queued, err := x.surelyQueued(ctx, e)
	if err != nil {
		return queue.Result{}, err
	}
	if queued {
		x.waiters.acked(e.Call)
	} else {
		e.Again = true
		if err := x.publish(c); err != nil {
			return queue.Result{}, err
		}
	}
	x.hintDemand(e.Function, c.stats, time.Now())
	return x.await(ctx, c, w)
}

// surelyQueued tells whether a call that has no result must not be published again, in case its first gateway died
// before it did. A young call may: the queue drops a second copy. An older one may only when its function's queue is empty,
// because a call stays there until its result is stored.
func (x *exchange) surelyQueued(ctx context.Context, e *queue.Envelope) (bool, error) {
	id, err := ulid.ParseStrict(e.Call)
	if err != nil {
		return false, fmt.Errorf("read call id of an idempotency key: %w", err)
	}
	if time.Since(ulid.Time(id.Time())) < freshFor {
		return false, nil
	}
	depth, err := queue.Depth(ctx, x.js, e.Function)
	if err != nil {
		return false, unavailable("the queue cannot be read; try again", err)
	}
	return depth > 0, nil
}

// loadSoon reads a result that is being stored just now: the message that says so is seen before it can be read.
func (x *exchange) loadSoon(ctx context.Context, call string) (queue.Result, bool) {
	s := x.ready.Load()
	for delay := time.Millisecond; delay < lookEvery; delay *= 4 {
		result, err := queue.LoadResultFrom(ctx, s.results, call)
		if err == nil {
			return result, true
		}
		select {
		case <-ctx.Done():
			return queue.Result{}, false
		case <-time.After(delay):
		}
	}
	return queue.Result{}, false // the sweep will find it
}
