package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	serverEvents = "text/event-stream"
	// keepAlive is how often a stream without values says that it is alive, for proxies and to notice a client that has gone.
	keepAlive = 15 * time.Second
)

// yielded is a value of a generator, a line or an event of the answer.
type yielded struct {
	Index int             `json:"index"`
	Value json.RawMessage `json:"value,omitempty"`
	// Base64 is a value that is neither JSON nor text.
	Base64 string `json:"value_base64,omitempty"`
}

// streamEnd is the last line: without it the answer was cut off.
type streamEnd struct {
	Done   bool        `json:"done"`
	Values int         `json:"values"`
	Error  *wire.Error `json:"error,omitempty"`
}

// valueWriter writes values as server-sent events or as NDJSON.
type valueWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	events  bool
}

func newValueWriter(w http.ResponseWriter, r *http.Request, call string) *valueWriter {
	v := &valueWriter{w: w, control: http.NewResponseController(w), events: strings.Contains(r.Header.Get("Accept"), serverEvents)}
	h := w.Header()
	h["Freshet-Call"] = []string{call}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Type"] = []string{ndjson}
	if v.events {
		h["Content-Type"] = []string{serverEvents}
	}
	w.WriteHeader(http.StatusOK)
	return v
}

func (v *valueWriter) value(value queue.Value) error {
	line := yielded{Index: value.Index, Value: asJSON(queue.Result{ContentType: value.ContentType, Body: value.Body})}
	if line.Value == nil {
		line.Base64 = base64.StdEncoding.EncodeToString(value.Body)
	}
	return v.write("", strconv.Itoa(value.Index), line)
}

func (v *valueWriter) end(end streamEnd) error {
	name := "end"
	if end.Error != nil {
		name = "error"
	}
	return errors.Join(v.write(name, "", end), v.control.Flush())
}

func (v *valueWriter) write(event, id string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode value: %w", err)
	}
	var out bytes.Buffer
	if v.events {
		if event != "" {
			out.WriteString("event: " + event + "\n")
		}
		if id != "" {
			out.WriteString("id: " + id + "\n")
		}
		out.WriteString("data: ")
	}
	out.Write(data)
	out.WriteByte('\n')
	if v.events {
		out.WriteByte('\n')
	}
	_, err = v.w.Write(out.Bytes())
	return err
}

// alive writes what readers skip.
func (v *valueWriter) alive() error {
	text := "\n"
	if v.events {
		text = ": alive\n\n"
	}
	_, err := v.w.Write([]byte(text))
	return errors.Join(err, v.control.Flush())
}

// handleStream calls a generator and writes each value as it comes. A client who goes away ends the call.
func (c *caller) handleStream(w http.ResponseWriter, r *http.Request) {
	t, err := c.prepareOne(r)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	own := call{stats: t.stats, envelope: t.envelope()}
	t.stats.enter()
	defer t.stats.leave()
	buffer := c.buffers.get()
	defer c.buffers.put(buffer)
	if err := c.startStream(w, r, t, &own, buffer); err != nil {
		c.refuse(w, r, err)
		return
	}
	ended := c.waiters.add(t.key, own.envelope.Call, time.Now(), time.Until(own.envelope.Deadline)+lastWord)
	defer c.waiters.remove(ended)
	c.hintDemand(t.key, t.stats, t.began)
	if err := c.publishSurely(r.Context(), &own); err != nil {
		c.refuse(w, r, err)
		return
	}
	values := newValueWriter(w, r, own.envelope.Call)
	s := newValueStream(c, own.envelope.Call, 0, values)
	err = s.run(r.Context(), func(ctx context.Context) (queue.Result, error) { return c.await(ctx, &own, ended) })
	if r.Context().Err() != nil {
		t.stats.failed(time.Since(t.began), outcomeGone)
		t.function.CancelOnDisconnect, t.header.key = true, ""
		c.gone(r, t, own.envelope.Call)
		return
	}
	if err != nil {
		c.exchange.log.Debug().Err(err).Str("call", own.envelope.Call).Msg("write stream")
	}
}

// publishSurely publishes a call and waits until the queue has it: the answer to a stream begins before its call ends, and a success
// must not be said of a call that is lost.
func (c *caller) publishSurely(ctx context.Context, own *call) error {
	own.envelope.Reply = queue.ReplySubject(c.id, own.envelope.Call)
	msg, err := own.envelope.Message()
	if err != nil {
		return badInput("request", own.envelope.Function.String(), err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, takeWithin)
	defer cancel()
	if _, err := insist(ctx, c.exchange, msg); err != nil {
		return publishProblem(err)
	}
	c.waiters.acked(own.envelope.Call)
	own.stats.published.Inc()
	return nil
}

func (c *caller) startStream(w http.ResponseWriter, r *http.Request, t target, own *call, buffer *[]byte) error {
	if t.header.key != "" {
		return badInput("header Idempotency-Key", t.header.key, "a stream takes none: spawn the call with stream=true, and read its values from its address")
	}
	large, err := c.payloads.read(w, r, &own.envelope, buffer)
	if err != nil {
		return err
	}
	if _, err := c.connected(); err != nil {
		return err
	}
	own.envelope.Stream, own.envelope.Call = true, newCall(t.began)
	if err := t.stats.admit(t.function.MaxPending); err != nil || !large {
		return err
	}
	defer stamp(&own.envelope)
	return c.payloads.keep(w, r, &own.envelope)
}

// handleValues reads the values of a generator that was spawned with stream=true, those that there are and those to come. A client
// that lost its connection goes on after the last index it has; one that goes away does not end the call.
func (s *spawns) handleValues(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "after")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if last := first(r.Header, "Last-Event-Id"); last != "" && !query.Has("after") {
		query.Set("after", last)
	}
	after, err := number(query, "after", -1, -1, 1<<53)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	_, id, err := s.loadPath(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	stream := newValueStream(s.caller, id, int(after)+1, newValueWriter(w, r, id))
	err = stream.run(r.Context(), func(ctx context.Context) (queue.Result, error) {
		for {
			result, err := s.awaitStored(ctx, id, maxWait)
			if !errors.Is(err, queue.ErrNoResult) || ctx.Err() != nil {
				return result, err
			}
		}
	})
	if err != nil {
		s.exchange.log.Debug().Err(err).Str("call", id).Msg("write stream")
	}
}

// valueStream writes a call's values in their order, each once, as fast as its reader takes them: they wait in the stream where they
// are stored, not here.
type valueStream struct {
	*caller

	call  string
	out   *valueWriter
	from  uint64 // sequence to read on from
	next  int    // index of the value that is due
	early map[int]queue.Value
	wake  chan struct{}
	seen  atomic.Int64 // one more than the highest index that was heard of
}

func newValueStream(c *caller, call string, next int, out *valueWriter) *valueStream {
	return &valueStream{caller: c, call: call, next: next, out: out, early: make(map[int]queue.Value), wake: make(chan struct{}, 1)}
}

// hear takes the word that a value is being stored.
func (s *valueStream) hear(msg *nats.Msg) {
	s.seen.Store(max(s.seen.Load(), int64(queue.ValueIndex(msg.Header))+1))
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end is how the call ended.
type end struct {
	result queue.Result
	err    error
}

func (s *valueStream) run(ctx context.Context, await func(context.Context) (queue.Result, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	ended := make(chan end, 1)
	waiting.Go(func() {
		result, err := await(ctx)
		ended <- end{result, err}
	})
	sub, err := s.nc.Subscribe(queue.YieldsSubject(s.call), s.hear)
	if err != nil {
		return fmt.Errorf("listen for values: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	return s.follow(ctx, ended)
}

// follow writes values until the call ended and all are written.
func (s *valueStream) follow(ctx context.Context, ended <-chan end) error {
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	again := time.NewTicker(lookEvery) // for words that were lost
	defer again.Stop()
	if err := s.pump(ctx); err != nil {
		return err
	}
	for {
		select {
		case <-s.wake:
			if err := s.pumpSoon(ctx); err != nil {
				return err
			}
		case <-again.C:
			if err := s.pump(ctx); err != nil {
				return err
			}
		case <-alive.C:
			if err := s.out.alive(); err != nil {
				return err
			}
		case last := <-ended:
			return s.finish(ctx, last)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pumpSoon reads values that are being stored just now: the word of them is heard before they can be read.
func (s *valueStream) pumpSoon(ctx context.Context) error {
	for delay := time.Millisecond; ; delay *= 4 {
		if err := s.pump(ctx); err != nil || int64(s.next) >= s.seen.Load() || delay > time.Second {
			return err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pump writes all values that are there and due.
func (s *valueStream) pump(ctx context.Context) error {
	wrote := false
	for {
		values, from, err := queue.ReadValues(ctx, s.nc, s.call, s.from)
		if err != nil {
			return err
		}
		if len(values) == 0 {
			break
		}
		s.from = from
		for _, value := range values {
			if value.Index >= s.next {
				s.early[value.Index] = value
			}
		}
		for value, ok := s.early[s.next]; ok; value, ok = s.early[s.next] {
			delete(s.early, s.next)
			s.next++
			wrote = true
			if err := s.out.value(value); err != nil {
				return err
			}
		}
	}
	if !wrote {
		return nil
	}
	return s.out.control.Flush()
}

// finish writes the values that came with the end, and the end.
func (s *valueStream) finish(ctx context.Context, last end) error {
	if err := s.pump(ctx); err != nil {
		return err
	}
	closing := streamEnd{Done: true, Values: s.next, Error: last.result.Error}
	switch {
	case last.err != nil:
		p := asProblem(last.err)
		closing.Error = &wire.Error{Kind: p.Kind, Message: p.Message}
	case s.next < last.result.Yields:
		closing.Error = &wire.Error{Kind: wire.KindLost, Message: fmt.Sprintf(
			"value %d and those after it are no longer kept; the call yielded %d", s.next, last.result.Yields)}
	}
	closing.Done = closing.Error == nil
	return s.out.end(closing)
}
