package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// keepResult is how long the result of a call that somebody waited for is kept.
	keepResult = 10 * time.Minute
	// lastWord is how long beyond its deadline a call's result is awaited: a worker notices the deadline at the same
	// moment, and its answer says more than the gateway's.
	lastWord = 250 * time.Millisecond
)

// call is one request to call a function, on its way.
type call struct {
	envelope queue.Envelope
	stats    *functionStats
	watched  bool // the result is taken from where it is stored
}

// handleCall calls a function and waits for the result. A caller who goes away does not end the call, unless the function says
// so: its result is stored as any other.
func (c *caller) handleCall(w http.ResponseWriter, r *http.Request) {
	t, err := c.prepareOne(r, "redirect", "wait")
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	own := call{stats: t.stats, envelope: t.envelope()}
	t.stats.enter()
	defer t.stats.leave()

	buffer := c.buffers.get()
	defer c.buffers.put(buffer)
	if t.header.query.Get("redirect") == "true" {
		c.callOrRedirect(w, r, t, &own, buffer)
		return
	}
	c.callAndWait(w, r, t, &own, buffer)
}

// callOrRedirect waits no longer than proxies do. A call that takes longer goes on like a spawned one, at an address of its own.
func (c *caller) callOrRedirect(w http.ResponseWriter, r *http.Request, t target, own *call, buffer *[]byte) {
	wait, err := parseWait(t.header.query)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	if wait == 0 {
		wait = maxWait
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	own.envelope.Call, own.envelope.Keep = queue.CallOfInput(queue.NewBatch(t.began), 0), keepKeyed
	result, err := c.take(w, r.WithContext(ctx), own, buffer, t.function.MaxPending)
	switch {
	case err == nil:
		t.stats.done(time.Since(t.began), result)
		c.answer(w, r, result)
	case ctx.Err() == nil || r.Context().Err() != nil || own.envelope.Call == "":
		c.failed(w, r, t, own, err)
	default:
		batch := queue.Batch{ID: queue.BatchOf(own.envelope.Call), Function: t.key, Inputs: 1, Spawned: t.began, Keep: own.envelope.Keep}
		if err := batch.Save(r.Context(), c.js); err != nil {
			c.refuse(w, r, unavailable("the call goes on but was not recorded", err))
			return
		}
		c.notYet(w, r, own.envelope.Call, statusRunning)
	}
}

// callAndWait waits until the call ends.
func (c *caller) callAndWait(w http.ResponseWriter, r *http.Request, t target, own *call, buffer *[]byte) {
	result, err := c.take(w, r, own, buffer, t.function.MaxPending)
	if err != nil {
		c.failed(w, r, t, own, err)
		return
	}
	t.stats.done(time.Since(t.began), result)
	c.answer(w, r, result)
}

// failed answers a request whose call was refused or that does not wait for its end any more.
func (c *caller) failed(w http.ResponseWriter, r *http.Request, t target, own *call, err error) {
	p := asProblem(err)
	t.stats.failed(time.Since(t.began), p.Kind)
	if p.Kind == outcomeGone {
		c.gone(r, t, own.envelope.Call)
		return
	}
	if own.envelope.Call != "" {
		w.Header()["Freshet-Call"] = []string{own.envelope.Call}
	}
	c.refuse(w, r, p)
}

// cancelWait bounds how long the cancelling of a call takes whose caller has gone.
const cancelWait = 5 * time.Second

// gone is told of a caller who did not wait for the answer.
func (c *caller) gone(r *http.Request, t target, call string) {
	c.exchange.log.Debug().Str("app", t.key.App).Str("function", t.key.Name).Str("call", call).Msg("caller has gone")
	if !t.function.CancelOnDisconnect || call == "" || t.header.key != "" { // others may wait for a call with a key
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), cancelWait)
	defer cancel()
	if _, err := c.cancelCall(ctx, t.key, call, "its caller has gone"); err != nil {
		c.exchange.log.Warn().Err(err).Str("call", call).Msg("cancel the call of a caller who has gone; it runs on")
	}
}

func envelopeOf(key queue.Function, header callHeader, function spec.Function, now time.Time) queue.Envelope {
	timeout := header.timeout
	if timeout == 0 {
		timeout = function.Timeout.Std()*time.Duration(1+function.Retries.Max) + function.StartupTimeout.Std()
	}
	return queue.Envelope{
		Function: key, Method: header.method, Deadline: now.Add(timeout), Published: now, Keep: max(keepResult, header.keep),
		IdempotencyKey: header.key, ContentType: header.contentType, Traceparent: header.traceparent,
	}
}

// take reads the input and sees the call through.
func (x *exchange) take(w http.ResponseWriter, r *http.Request, c *call, buffer *[]byte, maxPending int64) (queue.Result, error) {
	large, err := x.payloads.read(w, r, &c.envelope, buffer)
	if err != nil {
		return queue.Result{}, err
	}
	stores, err := x.connected()
	if err != nil {
		return queue.Result{}, err
	}
	if err := c.stats.admit(maxPending); err != nil {
		return queue.Result{}, err
	}
	if c.envelope.Call == "" {
		c.envelope.Call = newCall(c.envelope.Published)
	}
	if large {
		return x.takeLarge(w, r, c, stores)
	}
	if c.envelope.IdempotencyKey != "" {
		return x.takeOnce(r.Context(), c, stores)
	}
	return x.ask(r.Context(), c)
}

// takeLarge stores a large input before it sees the call through.
func (x *exchange) takeLarge(w http.ResponseWriter, r *http.Request, c *call, stores *stores) (result queue.Result, err error) {
	if err := x.payloads.keep(w, r, &c.envelope); err != nil {
		return queue.Result{}, err
	}
	stamp(&c.envelope)
	own := c.envelope.Payload
	if c.envelope.IdempotencyKey != "" {
		result, err = x.takeOnce(r.Context(), c, stores)
	} else {
		result, err = x.ask(r.Context(), c)
	}
	if err != nil && asProblem(err).Kind == kindQueueFull {
		x.payloads.discard(r.Context(), own)
	}
	return result, err
}

// stamp begins a call's time once its input is there.
func stamp(e *queue.Envelope) {
	now := time.Now()
	if !e.Deadline.IsZero() {
		e.Deadline = now.Add(e.Deadline.Sub(e.Published))
	}
	e.Published = now
}

// admit refuses a call beyond the function's own limit. What waits here is exact; what waits elsewhere was measured up to
// a second ago.
func (s *functionStats) admit(most int64) error {
	s.touched.Store(true)
	if most <= 0 || s.waiting.Load() <= most && s.depth.Load() < most {
		return nil
	}
	s.touched.Store(true)
	return &problem{
		Kind: kindQueueFull, retryAfter: time.Second,
		Message: fmt.Sprintf("%s has %d calls waiting and running, its max_pending; try again later", s.function, most),
	}
}

func newCall(now time.Time) string { return ulid.MustNew(ulid.Timestamp(now), rand.Reader).String() }

// ask publishes the call and waits for its result.
func (x *exchange) ask(ctx context.Context, c *call) (queue.Result, error) {
	e := &c.envelope
	w := x.waiters.add(e.Function, e.Call, time.Now(), time.Until(e.Deadline)+lastWord)
	defer x.waiters.remove(w)
	x.hintDemand(e.Function, c.stats, e.Published)
	if err := x.publish(c); err != nil {
		return queue.Result{}, err
	}
	return x.await(ctx, c, w)
}

// publish puts the call into its function's queue. The queue's word on it arrives as a reply.
func (x *exchange) publish(c *call) error {
	c.envelope.Reply = queue.ReplySubject(x.id, c.envelope.Call)
	if c.watched {
		c.envelope.Reply = queue.WatchedSubject(x.id, c.envelope.Call)
	}
	msg, err := c.envelope.Message()
	if err != nil {
		return badInput("request", c.envelope.Function.String(), err.Error())
	}
	msg.Reply = c.envelope.Reply
	if err := x.nc.PublishMsg(msg); err != nil {
		return unavailable("the queue cannot be reached; try again", err)
	}
	c.stats.published.Inc()
	return nil
}

// await waits until the call ended, its time is over, or nobody wants to know.
func (x *exchange) await(ctx context.Context, c *call, w *waiter) (queue.Result, error) {
	var later <-chan time.Time
	for {
		select {
		case <-later:
			if err := x.publish(c); err != nil {
				return queue.Result{}, err
			}
		case s := <-w.signals:
			switch {
			case s.result != nil:
				return parseResult(s.result)
			case s.err != nil:
				return queue.Result{}, s.err
			case s.again:
				if err := x.publish(c); err != nil { // the queue drops what it has already
					return queue.Result{}, err
				}
			case s.later:
				later = time.After(againAfter)
			case s.look:
				if result, ok := x.loadSoon(ctx, c.envelope.Call); ok {
					return result, nil
				}
			}
		case <-w.timer.C:
			return queue.Result{}, &problem{Kind: wire.KindExpired, Message: fmt.Sprintf(
				"no result of %s in %s; %s", c.envelope.Function, c.envelope.Deadline.Sub(c.envelope.Published), x.workersInWords(c.envelope.Function))}
		case <-ctx.Done():
			return queue.Result{}, &problem{Kind: outcomeGone, Message: "the caller has gone", cause: ctx.Err()}
		case <-x.stopped:
			return queue.Result{}, unavailable("this gateway stops; the call goes on: try again, with an Idempotency-Key to get its result", nil)
		}
	}
}

func (x *exchange) workersInWords(function queue.Function) string {
	all, ready := x.workers.count(function)
	return fmt.Sprintf("it has %d workers, %d of them ready", all, ready)
}

func parseResult(msg *nats.Msg) (queue.Result, error) {
	result, err := queue.ParseResult(msg.Header, msg.Data)
	if err != nil {
		return queue.Result{}, &problem{Kind: wire.KindProtocol, Message: "the worker sent a malformed result", cause: err}
	}
	return result, nil
}

// answer writes how the call ended.
func (c *caller) answer(w http.ResponseWriter, r *http.Request, result queue.Result) {
	// One allocation for all the header values; the names are canonical already.
	values := [...]string{
		result.Call, strconv.Itoa(result.Attempt), result.Worker, serverTiming(result),
		result.ContentType, strconv.Itoa(len(result.Body)),
	}
	h := w.Header()
	h["Freshet-Call"] = values[0:1:1]
	h["Freshet-Attempt"] = values[1:2:2]
	h["Freshet-Worker"] = values[2:3:3]
	h["Server-Timing"] = values[3:4:4]
	if result.Error != nil {
		c.refuse(w, r, ended(result.Error))
		return
	}
	if result.ContentType == "" {
		values[4] = "application/octet-stream"
	}
	h["Content-Type"] = values[4:5:5]
	if result.Payload != nil {
		c.send(w, r, result.Payload)
		return
	}
	h["Content-Length"] = values[5:6:6]
	w.WriteHeader(http.StatusOK)
	if _, err := w.Write(result.Body); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		c.exchange.log.Debug().Err(err).Str("call", result.Call).Msg("write answer")
	}
}

// serverTiming is the Server-Timing header: milliseconds with three decimals.
func serverTiming(r queue.Result) string {
	b := make([]byte, 0, 96)
	for _, part := range [...]struct {
		name string
		took time.Duration
	}{{"queue;dur=", r.Queued}, {", start;dur=", r.Started}, {", run;dur=", r.Run}} {
		b = append(b, part.name...)
		b = strconv.AppendFloat(b, float64(part.took)/float64(time.Millisecond), 'f', 3, 64)
	}
	return string(b)
}
