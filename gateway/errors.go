package gateway

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// The kinds of error that the gateway itself makes, beside those of package wire.
const (
	kindNotFound     wire.Kind = "not_found"
	kindNotAllowed   wire.Kind = "not_allowed"
	kindTooLarge     wire.Kind = "too_large"
	kindTooSlow      wire.Kind = "too_slow"
	kindQueueFull    wire.Kind = "queue_full"
	kindRateLimited  wire.Kind = "rate_limited"
	kindUnavailable  wire.Kind = "unavailable"
	kindConflict     wire.Kind = "conflict"
	kindGone         wire.Kind = "gone"
	kindUnauthorized wire.Kind = "unauthorized"
	kindTokenExpired wire.Kind = "token_expired"
	kindForbidden    wire.Kind = "forbidden"
	kindInternal     wire.Kind = "internal"
)

// kinds are all that a problem can be of, the gateway's own and those that calls end with.
func kinds() []wire.Kind {
	return []wire.Kind{
		wire.KindInput, kindUnauthorized, kindTokenExpired, kindForbidden, kindNotFound, kindNotAllowed, kindTooSlow, kindConflict, kindGone,
		kindTooLarge, kindQueueFull, kindRateLimited, wire.KindCancelled, wire.KindUser, kindInternal, wire.KindCrash, wire.KindMemory,
		wire.KindProtocol, wire.KindLost, wire.KindPayload, wire.KindStart, kindUnavailable, wire.KindTimeout, wire.KindExpired,
	}
}

// statusClientClosed is nginx's status for a call that the caller took back; HTTP has none of its own.
const statusClientClosed = 499

// statusOf is the one table from kinds to HTTP statuses.
func statusOf(kind wire.Kind) int {
	switch kind {
	case wire.KindInput:
		return http.StatusBadRequest
	case wire.KindTimeout, wire.KindExpired:
		return http.StatusGatewayTimeout
	case wire.KindCrash, wire.KindMemory, wire.KindProtocol, wire.KindLost, wire.KindPayload:
		return http.StatusBadGateway
	case wire.KindStart, kindUnavailable:
		return http.StatusServiceUnavailable
	case wire.KindCancelled:
		return statusClientClosed
	case kindNotFound:
		return http.StatusNotFound
	case kindNotAllowed:
		return http.StatusMethodNotAllowed
	case kindTooSlow:
		return http.StatusRequestTimeout
	case kindTooLarge:
		return http.StatusRequestEntityTooLarge
	case kindQueueFull, kindRateLimited:
		return http.StatusTooManyRequests
	case kindConflict:
		return http.StatusConflict
	case kindUnauthorized, kindTokenExpired:
		return http.StatusUnauthorized
	case kindForbidden:
		return http.StatusForbidden
	case kindGone:
		return http.StatusGone
	}
	return http.StatusInternalServerError // user errors, internal ones, and kinds of a newer worker
}

// problem is why a request did not succeed, as its answer says it.
type problem struct {
	Kind      wire.Kind `json:"kind"`
	Message   string    `json:"message"`
	Type      string    `json:"type,omitempty"`
	Traceback string    `json:"traceback,omitempty"`
	// Exception is the error itself, for a caller in the function's language who asked for it.
	Exception string `json:"exception,omitempty"`
	// Near are names like the one that was not found.
	Near []string `json:"near,omitempty"`

	retryAfter time.Duration // sent as Retry-After when set
	allow      string        // sent as Allow when set
	cause      error         // for the log, never sent
}

func (p *problem) Error() string {
	if p.cause != nil {
		return fmt.Sprintf("%s: %s: %v", p.Kind, p.Message, p.cause)
	}
	return fmt.Sprintf("%s: %s", p.Kind, p.Message)
}

func (p *problem) Unwrap() error { return p.cause }

// ended is the problem of a call that ended in an error.
func ended(err *wire.Error) *problem {
	return &problem{Kind: err.Kind, Message: err.Message, Type: err.Type, Traceback: err.Traceback, Exception: err.Exception}
}

// badInput names what is wrong in a request, what stands there, and what to write instead.
func badInput(field, value, mend string) *problem {
	const shown = 200
	if len(value) > shown {
		value = value[:shown] + "…"
	}
	return &problem{Kind: wire.KindInput, Message: spec.FieldError{Field: field, Value: value, Mend: mend}.Error()}
}

func unavailable(message string, cause error) *problem {
	return &problem{Kind: kindUnavailable, Message: message, cause: cause, retryAfter: time.Second}
}

// asProblem finds the problem in an error; any other error is an internal one, whose text stays in the log.
func asProblem(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	return &problem{Kind: kindInternal, Message: "the gateway could not do this; its log says why", cause: err}
}

// responder writes answers that are JSON.
type responder struct{ log zerolog.Logger }

// refuse answers with the error.
func (a responder) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := asProblem(err)
	status := statusOf(p.Kind)
	if p.cause != nil {
		level := a.log.Debug()
		if status == http.StatusInternalServerError {
			level = a.log.Error()
		}
		level.Err(p.cause).Str("method", r.Method).Str("path", r.URL.Path).Msg(p.Message)
	}
	h := w.Header()
	h.Set("Freshet-Error", string(p.Kind))
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.retryAfter+time.Second-1)/time.Second)))
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	a.write(w, problemJSON, status, details{
		Type: "urn:freshet:problem:" + string(p.Kind), Title: cmp.Or(http.StatusText(status), "Client Closed Request"), Status: status, Detail: p.Message, Error: p,
	})
}

// details is an error as RFC 9457 has it, with freshet's own member.
type details struct {
	Type   string   `json:"type"`
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Detail string   `json:"detail"`
	Error  *problem `json:"error"`
}

// respond writes a JSON answer.
func (a responder) respond(w http.ResponseWriter, status int, body any) {
	a.write(w, "application/json", status, body)
}

func (a responder) write(w http.ResponseWriter, contentType string, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		a.log.Error().Err(err).Msg("encode answer")
		status, data = http.StatusInternalServerError, []byte(`{"error":{"kind":"internal","message":"the answer cannot be encoded"}}`)
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(data)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // the client may have gone; nothing is left to do for it
}
