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
}

// handleCall calls a function and waits for the result. A caller who goes away does not end the call: its result is
// stored as any other.
func (g *Gateway) handleCall(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	header, err := parseCallHeader(r.Header, r.URL.RawQuery)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	function, err := g.find(header.namespace, r.PathValue("app"), r.PathValue("function"))
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	key := queue.Function{Namespace: header.namespace, App: function.App, Name: function.Name}
	c := call{stats: g.metrics.of(key), envelope: envelopeOf(key, header, function, began)}
	c.stats.enter()
	defer c.stats.leave()

	buffer := g.buffers.get()
	defer g.buffers.put(buffer)
	result, err := g.take(r, &c, buffer, function.MaxPending)
	took := time.Since(began)
	if err != nil {
		p := asProblem(err)
		c.stats.failed(took, p.Kind)
		if p.Kind == outcomeGone {
			g.log.Debug().Str("app", key.App).Str("function", key.Name).Str("call", c.envelope.Call).Msg("caller has gone")
			return
		}
		if c.envelope.Call != "" {
			w.Header()["Freshet-Call"] = []string{c.envelope.Call}
		}
		g.refuse(w, r, p)
		return
	}
	c.stats.done(took, result)
	g.answer(w, r, result)
}

func envelopeOf(key queue.Function, header callHeader, function spec.Function, now time.Time) queue.Envelope {
	timeout := header.timeout
	if timeout == 0 {
		timeout = function.Timeout.Std()*time.Duration(1+function.Retries.Max) + function.StartupTimeout.Std()
	}
	return queue.Envelope{
		Function: key, Method: header.method, Deadline: now.Add(timeout), Published: now, Keep: keepResult,
		IdempotencyKey: header.key, ContentType: header.contentType, Traceparent: header.traceparent,
	}
}

// take reads the input and sees the call through.
func (x *exchange) take(r *http.Request, c *call, buffer *[]byte, maxPending int64) (queue.Result, error) {
	if err := readBody(r, buffer); err != nil {
		return queue.Result{}, err
	}
	c.envelope.Body = *buffer
	stores := x.ready.Load()
	if stores == nil || !x.nc.IsConnected() {
		return queue.Result{}, unavailable("the queue is not connected; try again", nil)
	}
	if err := c.stats.admit(maxPending); err != nil {
		return queue.Result{}, err
	}
	if c.envelope.IdempotencyKey != "" {
		return x.takeOnce(r.Context(), c, stores)
	}
	c.envelope.Call = newCall(c.envelope.Published)
	return x.ask(r.Context(), c)
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
	w := x.waiters.add(e.Call, time.Now(), time.Until(e.Deadline)+lastWord)
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
	for {
		select {
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
			case s.look:
				if result, ok := x.loadSoon(ctx, c); ok {
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
func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, result queue.Result) {
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
		g.refuse(w, r, ended(result.Error))
		return
	}
	if result.ContentType == "" {
		values[4] = "application/octet-stream"
	}
	h["Content-Type"] = values[4:5:5]
	h["Content-Length"] = values[5:6:6]
	w.WriteHeader(http.StatusOK)
	if _, err := w.Write(result.Body); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		g.log.Debug().Err(err).Str("call", result.Call).Msg("write answer")
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
