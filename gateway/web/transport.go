package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/freshet-dev/freshet/internal/webstream"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// maxFault bounds how much of a worker's word about a fault is read, in bytes.
	maxFault = 64 << 10
	// maxTries is how many workers are tried that were not reached; those without a free slot do not count.
	maxTries = 5
)

// transport sends a request to one of a function's workers.
type transport struct {
	base     *http.Transport
	fleet    *fleet
	function spec.Function
	// body is the request's; nil for none.
	body *webstream.Body
}

// RoundTrip finds a worker and sends the request there; another one when that took nothing of it.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	limit := t.function.StartupTimeout.Std()
	waiting, cancel := context.WithTimeoutCause(r.Context(), limit, &Fault{
		Kind: wire.KindExpired, Message: fmt.Sprintf("no worker had a free slot within the function's startup_timeout of %s", limit), RetryAfter: retrySoon,
	})
	defer cancel()
	for tries := 0; ; {
		m, err := t.fleet.take(waiting)
		if errors.Is(err, errFull) {
			return nil, &Fault{Kind: kindUnavailable, Message: fmt.Sprintf("%d requests wait for the function already; try again later", maxWaiting), RetryAfter: retrySoon}
		}
		if err != nil {
			return nil, err
		}
		response, err := t.try(r, m)
		switch {
		case err == nil:
			return response, nil
		case errors.Is(err, errRefused) && !t.body.Used():
		case t.body.Used() || r.Context().Err() != nil || tries >= maxTries || !again(r, err):
			return nil, err
		default:
			tries++
		}
	}
}

// errRefused is the word of a worker without a free slot.
var errRefused = errors.New("the worker takes no request now")

// again tells whether a request may be sent to another worker: when this one was never reached, or when twice does no harm.
func again(r *http.Request, err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	var fault *Fault
	if errors.As(err, &fault) {
		return false // the guest may have begun
	}
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
}

// try sends the request to one worker.
func (t transport) try(r *http.Request, m *member) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = "http", m.beat.Door.Address
	out.Header.Set(webstream.KeyHeader, m.beat.Door.Key)
	if t.body != nil {
		out.Body = t.body
		out.Header.Set("Expect", "100-continue") // a worker that refuses leaves it unread
	}
	response, err := t.base.RoundTrip(out)
	if err != nil {
		t.fleet.avoid(m)
		return nil, fmt.Errorf("reach worker %s: %w", m.beat.Alloc, err)
	}
	kind := response.Header.Get(webstream.FaultHeader)
	if kind == "" {
		response.Body = hold(response.Body, func() { t.fleet.release(m) })
		return response, nil
	}
	message, _ := io.ReadAll(io.LimitReader(response.Body, maxFault)) // what came of it is told
	_ = response.Body.Close()
	if kind == webstream.Refused {
		t.fleet.avoid(m)
		if t.body.Used() {
			return nil, &Fault{Kind: wire.KindLost, Message: "the worker refused a request that was sent to it in part; try again", RetryAfter: retrySoon}
		}
		return nil, errRefused
	}
	t.fleet.release(m)
	return nil, &Fault{Kind: wire.Kind(kind), Message: string(message)}
}

// held is a response's body that gives its worker's slot back when it is closed.
type held struct {
	io.ReadCloser

	close sync.Once
	done  func()
}

func (h *held) Close() error {
	err := h.ReadCloser.Close()
	h.close.Do(h.done)
	return err
}

// switched is a connection that was upgraded.
type switched struct {
	*held
	io.Writer
}

func hold(body io.ReadCloser, done func()) io.ReadCloser {
	h := &held{ReadCloser: body, done: done}
	if w, ok := body.(io.Writer); ok {
		return switched{h, w}
	}
	return h
}
