package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// mapWindow is how many calls of a map are in flight unless the request says otherwise, maxMapWindow the most it may say.
	mapWindow    = 256
	maxMapWindow = 4096
	// mapPause is how long a full or absent queue is left alone before an item tries again.
	mapPause = 200 * time.Millisecond
	ndjson   = "application/x-ndjson"
)

// mapped is the end of one of a map's calls, a line of the answer.
type mapped struct {
	Index  int64           `json:"index"`
	Call   string          `json:"call"`
	Output json.RawMessage `json:"output,omitempty"`
	// Base64 is an output that is neither JSON nor text.
	Base64 string `json:"output_base64,omitempty"`
	// Bytes is the size of an output that is too large for a line: it is at URL.
	Bytes int64       `json:"output_bytes,omitempty"`
	URL   string      `json:"output_url,omitempty"`
	Error *wire.Error `json:"error,omitempty"`

	unsaid bool // it is not written: the client has read it, or it is not known
}

// mapEnd is the last line: without it the answer was cut off.
type mapEnd struct {
	Done   bool   `json:"done"`
	Batch  string `json:"batch"`
	Inputs int64  `json:"inputs"`
	Failed int64  `json:"failed"`
	// Stopped says that inputs were left out because one failed.
	Stopped bool `json:"stopped,omitempty"`
	// Error is why the inputs could not be read to their end.
	Error *problem `json:"error,omitempty"`
}

func newMapped(index int64, r queue.Result) mapped {
	line := mapped{Index: index, Call: r.Call, Error: r.Error, Output: asJSON(r), Bytes: outputSize(r), URL: outputURL(r)}
	if line.Output == nil && len(r.Body) > 0 {
		line.Base64 = base64.StdEncoding.EncodeToString(r.Body)
	}
	return line
}

// mapping is one map on its way: at most window calls are in flight, and inputs are read only as there is room.
type mapping struct {
	*caller
	target

	batch   string
	first   int64 // index of the first input
	ordered bool
	stop    bool  // at the first error
	again   bool  // earlier requests may have published the same inputs
	sent    int64 // those from this index on were in none

	work chan input // for callers that have made a call and wait for the next

	slots   chan struct{}
	ends    chan mapped
	running sync.WaitGroup
	inputs  int64
	readErr error
	cut     atomic.Bool // the gateway stops, and inputs or ends are left out
}

// input is one of a map's.
type input struct {
	index int64
	line  []byte
}

// handleMap calls the function once for each line of the body and streams the ends of the calls back while it reads. Whoever loses
// the connection goes on with the same batch from the first index that is missing: inputs that ran are not run again. With sent, the
// inputs before it may be left empty where their ends were read; those from it on were in no request before.
func (c *caller) handleMap(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) { // HTTP/2 always is
		c.refuse(w, r, err)
		return
	}
	endConnection(w, r)    // whether the body is read to its end is known when the answer has begun
	m, err := c.openMap(r) // refused at once: the rest of the body may wait for the answer
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	sub, err := m.watch()
	if err != nil {
		c.refuse(w, r, unavailable("the queue cannot be reached; try again", err))
		return
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	m.stats.enter()
	defer m.stats.leave()
	h := w.Header()
	h["Freshet-Batch"] = []string{m.batch}
	h["Content-Type"] = []string{ndjson}
	w.WriteHeader(http.StatusOK)
	_ = control.Flush() // the batch's id, before the first end
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() { m.read(ctx, r.Body) })
	if err := m.write(ctx, cancel, w, control); err != nil {
		c.exchange.log.Debug().Err(err).Str("batch", m.batch).Msg("map was cut off; its calls go on")
	}
}

// watch takes the results as they are stored. The server's word that they are comes to whom they were published for: those of calls
// that an earlier request may have published are looked for.
func (m *mapping) watch() (*nats.Subscription, error) {
	sub, err := m.nc.Subscribe(queue.BatchResults(m.batch), func(msg *nats.Msg) {
		call := queue.CallOfResult(msg.Subject)
		m.waiters.hold(call, queue.SenderOf(msg.Header), msg)
		if m.again && queue.InputOf(call) < m.sent {
			m.waiters.lookSoon(call)
		}
	})
	if err != nil {
		return nil, err
	}
	return sub, sub.SetPendingLimits(-1, -1) // the window bounds them
}

func (c *caller) openMap(r *http.Request) (*mapping, error) {
	t, err := c.prepare(r, "batch", "from", "sent", "window", "order", "on_error")
	if err != nil {
		return nil, err
	}
	if _, err := c.connected(); err != nil {
		return nil, err
	}
	query := t.header.query
	window, err := number(query, "window", mapWindow, 1, maxMapWindow)
	if err != nil {
		return nil, err
	}
	m := &mapping{caller: c, target: t, batch: query.Get("batch"), slots: make(chan struct{}, window), ends: make(chan mapped, window)}
	if m.first, err = number(query, "from", 0, 0, queue.MaxInputs-1); err != nil {
		return nil, err
	}
	if m.sent, err = number(query, "sent", queue.MaxInputs, m.first, queue.MaxInputs); err != nil {
		return nil, err
	}
	if m.ordered, err = choice(query.Get("order"), "order", "finished", "input"); err != nil {
		return nil, err
	}
	if m.stop, err = choice(query.Get("on_error"), "on_error", "continue", "stop"); err != nil {
		return nil, err
	}
	switch {
	case m.batch == "" && m.first > 0:
		return nil, badInput("query parameter from", query.Get("from"), "name the batch too, or begin with input 0")
	case m.batch == "" && query.Has("sent"):
		return nil, badInput("query parameter sent", query.Get("sent"), "name the batch too: no input of a new one was sent before")
	case m.batch == "":
		m.batch = queue.NewBatch(t.began)
	default:
		m.again = true
		if err := queue.CheckID(m.batch); err != nil || queue.InputOf(m.batch) >= 0 {
			return nil, badInput("query parameter batch", m.batch, "use the Freshet-Batch of the answer that broke off")
		}
	}
	return m, nil
}

// choice reads a parameter with two values, the first of which it has when it is not given.
func choice(value, name, usual, other string) (bool, error) {
	switch value {
	case "", usual:
		return false, nil
	case other:
		return true, nil
	}
	return false, badInput("query parameter "+name, value, "use "+usual+" or "+other)
}

// read makes a call for each input and closes ends after the last one.
func (m *mapping) read(ctx context.Context, body io.Reader) {
	defer close(m.ends)
	defer m.running.Wait()
	m.work = make(chan input)
	defer close(m.work)
	lines := newLineReader(body)
	if m.sent < queue.MaxInputs {
		lines.known = m.sent - m.first
	}
	for index := m.first; ; index++ {
		select {
		case m.slots <- struct{}{}:
		case <-ctx.Done():
			return
		case <-m.stopped:
			m.cut.Store(true)
			return
		}
		line, err := lines.next()
		var wrong *lineError
		switch {
		case errors.As(err, &wrong):
			m.inputs++
			m.ends <- mapped{Index: index, Error: &wire.Error{Kind: wire.KindInput, Message: wrong.Message}}
		case err != nil:
			if !errors.Is(err, io.EOF) {
				m.readErr = err
			}
			return
		default:
			m.inputs++
			if line == nil {
				m.ends <- mapped{Index: index, unsaid: true}
				continue
			}
			if err := m.keepPace(ctx, m.stopped); err != nil {
				if ctx.Err() == nil {
					m.cut.Store(true)
				}
				return
			}
			select {
			case m.work <- input{index, line}:
			default:
				m.running.Go(func() { m.callAll(ctx, input{index, line}) })
			}
		}
	}
}

// callAll sees an input through, and then those that it is given.
func (m *mapping) callAll(ctx context.Context, in input) {
	for ok := true; ok; in, ok = <-m.work {
		m.ends <- m.call(ctx, in.index, in.line)
	}
}

// call sees one input through, and tries again while the queue is full or away.
func (m *mapping) call(ctx context.Context, index int64, input []byte) mapped {
	own := call{stats: m.stats, envelope: m.envelope(), watched: true}
	e := &own.envelope
	e.Call, e.Body, e.Again = queue.CallOfInput(m.batch, index), input, m.again && index < m.sent
	e.ContentType, e.IdempotencyKey, e.Keep = "application/json", "", keepKeyed
	if e.Again {
		if result, err := m.awaitStored(ctx, e.Call, 0); err == nil { // it ended in an earlier request: no worker is needed
			return newMapped(index, result)
		}
	}
	for {
		now := time.Now()
		e.Deadline, e.Published = now.Add(e.Deadline.Sub(e.Published)), now
		result, err := m.ask(ctx, &own)
		if err == nil {
			m.stats.done(time.Since(now), result)
			return newMapped(index, result)
		}
		p := asProblem(err)
		if p.Kind != kindQueueFull && p.Kind != kindUnavailable || ctx.Err() != nil {
			m.stats.failed(time.Since(now), p.Kind)
			return mapped{Index: index, Call: e.Call, Error: &wire.Error{Kind: p.Kind, Message: p.Message}}
		}
		e.Again = true
		select {
		case <-time.After(mapPause):
		case <-ctx.Done():
		case <-m.stopped:
			m.cut.Store(true)
			return mapped{Index: index, unsaid: true}
		}
	}
}
