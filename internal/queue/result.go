package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// The headers of a result's message.
const (
	headerError   = "Freshet-Error"
	headerWorker  = "Freshet-Worker"
	headerQueued  = "Freshet-Queue-Time"
	headerStarted = "Freshet-Start-Time"
	headerRun     = "Freshet-Run-Time"
	headerYields  = "Freshet-Yields"
	// headerProvisional marks a reply that counts only once its result is stored.
	headerProvisional = "Freshet-Provisional"
)

// Result is how a call ended.
type Result struct {
	Call string
	// Attempt is the one that ended the call, from 1.
	Attempt int
	// Worker is the allocation that ran it.
	Worker string
	// Error is set when the call did not end with an output.
	Error *wire.Error
	// ContentType and Body are the output.
	ContentType string
	Body        []byte
	// Payload refers to an output that is too large for a message; Body is then empty.
	Payload *Payload
	// Queued is how long the call waited for a worker that was there, Started how long for a worker's start, Run how
	// long the guest took.
	Queued  time.Duration
	Started time.Duration
	Run     time.Duration
	// Yields is how many values the call yielded before it ended.
	Yields int
	// Keep is how long the result is kept; zero means the stream's own maximum.
	Keep time.Duration
}

// sender tells the attempts of a call apart.
func (r Result) sender() string { return r.Worker + "." + strconv.Itoa(r.Attempt) }

// SenderOf is the worker and the attempt that a result's message comes from, as subjects of StoredSubject name them.
func SenderOf(h nats.Header) string { return get(h, headerWorker) + "." + get(h, headerAttempt) }

// ErrNoResult says that the call has no stored result: it is unknown, not yet done, or its result's time is over.
var ErrNoResult = errors.New("no result")

// Message encodes the result for the subject. Errors travel as JSON in the body.
func (r Result) Message(subject string) (*nats.Msg, error) {
	h := nats.Header{headerCall: {r.Call}, headerAttempt: {strconv.Itoa(r.Attempt)}}
	set(h, headerWorker, r.Worker)
	set(h, headerContentType, r.ContentType)
	setDuration(h, headerQueued, r.Queued)
	setDuration(h, headerStarted, r.Started)
	setDuration(h, headerRun, r.Run)
	if r.Yields > 0 {
		h[headerYields] = []string{strconv.Itoa(r.Yields)}
	}
	r.Payload.set(h)
	body := r.Body
	if r.Error != nil {
		h[headerError] = []string{string(r.Error.Kind)}
		var err error
		if body, err = json.Marshal(r.Error); err != nil {
			return nil, fmt.Errorf("encode error of call %s: %w", r.Call, err)
		}
	}
	return &nats.Msg{Subject: subject, Header: h, Data: body}, nil
}

// ParseResult decodes a stored or replied result.
func ParseResult(h nats.Header, body []byte) (Result, error) {
	attempt, err := number(h, headerAttempt, 0, 1_000_000)
	if err != nil {
		return Result{}, err
	}
	yields, err := number(h, headerYields, 0, maxNanos)
	if err != nil {
		return Result{}, err
	}
	r := Result{
		Yields:      yields,
		Call:        get(h, headerCall),
		Attempt:     attempt,
		Worker:      get(h, headerWorker),
		ContentType: get(h, headerContentType),
		Queued:      duration(h, headerQueued),
		Started:     duration(h, headerStarted),
		Run:         duration(h, headerRun),
		Body:        body,
	}
	if r.Payload, err = parsePayload(h, body); err != nil {
		return Result{}, err
	}
	if kind := get(h, headerError); kind != "" {
		r.Body = nil
		r.Error = &wire.Error{}
		if err := json.Unmarshal(body, r.Error); err != nil {
			return Result{}, fmt.Errorf("decode error of call %s: %w", r.Call, err)
		}
	}
	return r, nil
}

// LoadResult reads how a call ended; ErrNoResult when it has not, for certain.
func LoadResult(ctx context.Context, js jetstream.JetStream, call string) (Result, error) {
	record, found, err := lastByLeader(ctx, js.Conn(), ResultsStream, ResultSubject(call))
	if err != nil {
		return Result{}, fmt.Errorf("load result of call %s: %w", call, err)
	}
	if !found {
		return Result{}, fmt.Errorf("call %s: %w", call, ErrNoResult)
	}
	return ParseResult(record.Header, record.Data)
}

// LoadResultFrom reads how a call ended, from any replica of the stream: ErrNoResult may be said of one that ended a moment ago.
func LoadResultFrom(ctx context.Context, stream jetstream.Stream, call string) (Result, error) {
	raw, err := stream.GetLastMsgForSubject(ctx, ResultSubject(call))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Result{}, fmt.Errorf("call %s: %w", call, ErrNoResult)
	}
	if err != nil {
		return Result{}, fmt.Errorf("load result of call %s: %w", call, err)
	}
	return ParseResult(raw.Header, raw.Data)
}

func setDuration(h nats.Header, name string, d time.Duration) {
	if d > 0 {
		h[name] = []string{strconv.FormatInt(d.Nanoseconds(), 10)}
	}
}

// duration reads an informational time; a malformed one counts as none.
func duration(h nats.Header, name string) time.Duration {
	nanos, err := strconv.ParseInt(get(h, name), 10, 64)
	if err != nil || nanos < 0 {
		return 0
	}
	return time.Duration(nanos)
}
