package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// How fast a body must come: all of it within slowest, and a second more for each slowRate bytes that came.
const (
	defaultBodyWait = 30 * time.Second
	slowRate        = 16 << 10
)

// payloads are the inputs and outputs that are too large for the queue.
type payloads struct {
	store *blobs.Payloads
	most  int64         // bytes of a body
	wait  time.Duration // for a body
	log   zerolog.Logger
}

func newPayloads(config Config) *payloads {
	p := &payloads{store: config.Blobs.Payloads(), most: config.MaxPayload, wait: config.BodyWait, log: config.Log}
	if p.most == 0 {
		p.most = queue.MaxPayload
	}
	if p.wait == 0 {
		p.wait = defaultBodyWait
	}
	return p
}

// read reads an input into the envelope, and tells whether it is too large for a message: what came of it is then in the buffer.
func (p *payloads) read(w http.ResponseWriter, r *http.Request, e *queue.Envelope, buffer *[]byte) (large bool, err error) {
	switch {
	case r.ContentLength == 0:
		e.Body = (*buffer)[:0]
		return false, nil
	case r.ContentLength > p.most:
		return false, p.tooLarge(decimal(r.ContentLength) + " bytes")
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(p.wait)) // a server that cannot has limits of its own
	if large, err = readBody(r, buffer); err != nil {
		return false, p.broken(len(*buffer), err)
	}
	_ = control.SetReadDeadline(time.Time{})
	if large && p.most <= queue.MaxInline {
		return false, p.tooLarge("more than that")
	}
	e.Body = *buffer
	return large, nil
}

// keep stores a large input while it comes, what came of it first. The envelope has its call's id.
func (p *payloads) keep(w http.ResponseWriter, r *http.Request, e *queue.Envelope) error {
	body := p.pace(w, r)
	name := queue.InputName(e.Function, e.Call)
	written, err := p.store.Put(r.Context(), name, io.MultiReader(bytes.NewReader(e.Body), body), p.most)
	switch {
	case errors.Is(err, blobs.ErrTooLong):
		return p.tooLarge("more than that")
	case body.failed != nil:
		return p.broken(len(e.Body)+int(body.read), body.failed)
	case err != nil:
		return unavailable("the blob store did not take the input; try again", err)
	}
	body.allow(0)
	e.Body, e.Payload = nil, &queue.Payload{Name: name, Size: written.Size, Sum: written.Sum}
	return nil
}

func (p *payloads) tooLarge(size string) *problem {
	return &problem{Kind: kindTooLarge, Message: fmt.Sprintf("body: %s: a call takes at most %d bytes", size, p.most)}
}

// discard removes the input of a call that is not in the queue. What cannot be removed is swept later.
func (p *payloads) discard(ctx context.Context, input *queue.Payload) {
	if input == nil {
		return
	}
	if err := p.store.Delete(context.WithoutCancel(ctx), input.Name); err != nil {
		p.log.Warn().Err(err).Msg("remove the input of a call that was refused; it is swept later")
	}
}

// joined has a call that another request made first refer to that request's input, which is the same.
func (p *payloads) joined(ctx context.Context, e *queue.Envelope) {
	if e.Payload == nil || e.Payload.Name == queue.InputName(e.Function, e.Call) {
		return
	}
	p.discard(ctx, e.Payload)
	e.Payload = &queue.Payload{Name: queue.InputName(e.Function, e.Call), Size: e.Payload.Size, Sum: e.Payload.Sum}
}

// paced reads a body that must come at a pace.
type paced struct {
	body    io.Reader
	control *http.ResponseController
	began   time.Time
	wait    time.Duration
	allowed time.Duration // as the deadline was last set
	read    int64
	failed  error
}

// allow sets how long after its begin the body may take; 0 is for ever.
func (p *paced) allow(d time.Duration) {
	p.allowed = d
	until := p.began.Add(d)
	if d == 0 {
		until = time.Time{}
	}
	_ = p.control.SetReadDeadline(until)
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	p.read += int64(n)
	if due := p.wait + time.Duration(p.read/slowRate)*time.Second; due > p.allowed+time.Second {
		p.allow(due)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		p.failed = err
	}
	return n, err
}

// broken says why a body did not come. Its deadline stays: nobody waits for the rest of it.
func (p *payloads) broken(read int, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &problem{Kind: kindTooSlow, cause: err, Message: fmt.Sprintf(
			"body: %d bytes, then nothing in time: a body must come within %s, and a second more for each %d bytes", read, p.wait, slowRate)}
	}
	broken := badInput("body", fmt.Sprintf("%d bytes, then %v", read, err), "send the whole body")
	broken.cause = err
	return broken
}

// payloadProblem says why a payload cannot be given.
func payloadProblem(what string, err error) *problem {
	if errors.Is(err, blobs.ErrNotFound) || errors.Is(err, blobs.ErrDigest) {
		return &problem{Kind: wire.KindPayload, Message: what + " is not in the blob store any more, or not as it was stored", cause: err}
	}
	return unavailable("the blob store does not give "+what+"; try again", err)
}

// send answers with a payload, or the range of it that the request asks for.
func (c *caller) send(w http.ResponseWriter, r *http.Request, payload *queue.Payload) {
	in, err := c.payloads.store.Open(r.Context(), payload.Name, blobs.Written{Size: payload.Size, Sum: payload.Sum})
	if err != nil {
		c.refuse(w, r, payloadProblem("the payload", err))
		return
	}
	defer func() { _ = in.Close() }() // read only
	h := w.Header()
	h["Etag"] = []string{`"` + payload.Sum + `"`}
	var out io.Reader = in
	status, length := http.StatusOK, payload.Size
	if r.Method == http.MethodGet {
		h["Accept-Ranges"] = []string{"bytes"}
		if from, to, ok := parseRange(first(r.Header, "Range"), payload.Size); ok && matches(r.Header, payload.Sum) {
			part, err := c.payloads.store.OpenRange(r.Context(), payload.Name, from, to-from)
			if err != nil {
				c.refuse(w, r, payloadProblem("the payload", err))
				return
			}
			defer func() { _ = part.Close() }() // read only
			out, status, length = part, http.StatusPartialContent, to-from
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, payload.Size))
		}
	}
	h["Content-Length"] = []string{decimal(length)}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(w, out); err != nil && r.Context().Err() == nil { // the client sees an answer that is too short
		c.exchange.log.Warn().Err(err).Str("payload", payload.Name).Msg("send payload")
	}
}

// matches tells whether a range is wanted of this very payload.
func matches(h http.Header, sum string) bool {
	wanted := first(h, "If-Range")
	return wanted == "" || wanted == `"`+sum+`"`
}

// parseRange reads the one range of bytes that a request asks for. Any other header is ignored, as RFC 9110 allows, and all is sent.
func parseRange(text string, size int64) (from, to int64, ok bool) {
	text, ok = strings.CutPrefix(text, "bytes=")
	first, last, dash := strings.Cut(text, "-")
	if !ok || !dash {
		return 0, 0, false
	}
	if first == "" { // the last so many
		n, err := strconv.ParseInt(last, 10, 64)
		return max(size-n, 0), size, err == nil && n > 0 && size > 0
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 || from >= size {
		return 0, 0, false
	}
	if last == "" {
		return from, size, true
	}
	to, err = strconv.ParseInt(last, 10, 64)
	return from, min(to+1, size), err == nil && to >= from
}

// outputURL is where the large output of a call is, whether it was spawned or is one of a map.
func outputURL(r queue.Result) string {
	if r.Payload == nil {
		return ""
	}
	f, call, _, _ := queue.ParsePayloadName(r.Payload.Name) // its parsing checked it
	return "/v1/functions/" + f.App + "/" + f.Name + "/outputs/" + call + "?namespace=" + f.Namespace
}

// outputSize is the size of an output that is not shown.
func outputSize(r queue.Result) int64 {
	if r.Payload == nil {
		return 0
	}
	return r.Payload.Size
}

// handleOutput answers with the large output of a call.
func (c *caller) handleOutput(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace")
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	id, err := pathID(r)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	result, err := c.awaitStored(r.Context(), id, 0)
	if errors.Is(err, queue.ErrNoResult) {
		err = c.keep.unknown(id, "no output of call "+id)
	}
	if err == nil {
		key := queue.Function{Namespace: namespaceOf(query), App: r.PathValue("app"), Name: r.PathValue("function")}
		if result.Payload == nil || !strings.HasPrefix(result.Payload.Name, queue.PayloadsOf(key, id)) {
			err = &problem{Kind: kindNotFound, Message: "call " + id + " has no large output of " + key.String()}
		}
	}
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	c.answer(w, r, result)
}

// kept is the longest that results are kept.
type kept time.Duration

// unknown tells calls whose results' time is over from those that there never were, as far as their ids can: they hold the time.
func (k kept) unknown(id, message string) *problem {
	parsed, err := ulid.ParseStrict(id)
	if age := time.Since(ulid.Time(parsed.Time())); err == nil && age > time.Duration(k) {
		return &problem{Kind: kindGone, Message: fmt.Sprintf("%s: an id of %s ago; results are kept %s at most", message, age.Round(time.Hour), time.Duration(k))}
	}
	return &problem{Kind: kindNotFound, Message: message + ": it was not spawned, or the time for which its result was to be kept is over"}
}
