package queue

import (
	"errors"
	"fmt"
	"net/textproto"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Limits on a call.
const (
	// MaxInline is the largest body that travels in a message, in bytes. NATS takes 1 MiB by default, headers included;
	// the servers of freshet are set to MaxMessage.
	MaxInline = 1 << 20
	// MaxMessage is what a server must accept: the body and the headers.
	MaxMessage = MaxInline + 64<<10
	// MaxHeader bounds any one header value that a caller chose, in bytes.
	MaxHeader = 1024
)

// The headers of a call's message. Content-Type and traceparent keep their own names.
const (
	headerCall        = "Freshet-Call"
	headerMethod      = "Freshet-Method"
	headerAttempt     = "Freshet-Attempt"
	headerDeadline    = "Freshet-Deadline"
	headerPublished   = "Freshet-Published"
	headerReply       = "Freshet-Reply"
	headerKey         = "Freshet-Idempotency-Key"
	headerKeep        = "Freshet-Keep"
	headerContentType = "Content-Type"
	headerTrace       = "Traceparent"
	headerSpawned     = "Freshet-Spawned"
	headerStream      = "Freshet-Stream"
	headerAgain       = "Freshet-Again"
)

// ErrEnvelope is wrapped by every error about a message that is no proper call.
var ErrEnvelope = errors.New("malformed call")

// Envelope is a call as it travels.
type Envelope struct {
	Function Function
	// Call is the call's ULID.
	Call string
	// Method of a class; empty for a plain function.
	Method string
	// Attempt is how many attempts were made before this message was published; a replayed call continues counting.
	Attempt int
	// Deadline is when nobody waits for the call any more; zero means never.
	Deadline time.Time
	// Published is when the gateway took the call; the queue time counts from here.
	Published time.Time
	// Reply is where the result is wanted at once; empty when nobody waits.
	Reply string
	// Keep is how long the result is kept; zero means the stream's own maximum, 7 days.
	Keep time.Duration
	// IdempotencyKey is the caller's, for inspection.
	IdempotencyKey string
	// ContentType and Traceparent are the caller's.
	ContentType string
	Traceparent string
	// Spawned says that nobody waits for the result: it is fetched later.
	Spawned bool
	// Stream says that the values which the call yields are wanted as they come.
	Stream bool
	// Again says that the call may have been published, and even have ended, before: its result is to be looked for first.
	Again bool
	// Callback is where the caller wants to be told that the call ended; empty when it does not.
	Callback string
	// Body is the input, at most MaxInline bytes.
	Body []byte
	// Payload refers to an input that is larger; Body is then empty.
	Payload *Payload
}

// Message encodes the envelope, checked, for publishing to its function's subject. The call's id is the message id, so
// publishing it twice queues it once.
func (e Envelope) Message() (*nats.Msg, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	h := nats.Header{
		headerCall:      {e.Call},
		nats.MsgIdHdr:   {e.Call},
		headerPublished: {strconv.FormatInt(e.Published.UnixNano(), 10)},
	}
	set(h, headerMethod, e.Method)
	set(h, headerReply, e.Reply)
	set(h, headerKey, e.IdempotencyKey)
	set(h, headerContentType, e.ContentType)
	set(h, headerTrace, e.Traceparent)
	set(h, headerCallback, e.Callback)
	setFlag(h, headerSpawned, e.Spawned)
	setFlag(h, headerStream, e.Stream)
	setFlag(h, headerAgain, e.Again)
	e.Payload.set(h)
	if e.Attempt > 0 {
		h[headerAttempt] = []string{strconv.Itoa(e.Attempt)}
	}
	if e.Keep > 0 {
		h[headerKeep] = []string{e.Keep.String()}
	}
	if !e.Deadline.IsZero() {
		h[headerDeadline] = []string{strconv.FormatInt(e.Deadline.UnixMilli(), 10)}
	}
	return &nats.Msg{Subject: e.Function.CallsSubject(), Header: h, Data: e.Body}, nil
}

func (e Envelope) check() error {
	if !validID(e.Call) {
		return fmt.Errorf("%w: call %q: use a ULID", ErrEnvelope, e.Call)
	}
	if len(e.Body) > MaxInline {
		return fmt.Errorf("%w: body of %d bytes: use at most %d", ErrEnvelope, len(e.Body), MaxInline)
	}
	if e.Payload != nil {
		if err := e.Payload.check(); err != nil {
			return err
		}
	}
	for _, field := range []struct{ name, value string }{
		{"method", e.Method},
		{"idempotency key", e.IdempotencyKey},
		{"content type", e.ContentType},
		{"traceparent", e.Traceparent},
		{"reply", e.Reply},
		{"callback", e.Callback},
	} {
		if len(field.value) > MaxHeader {
			return fmt.Errorf("%w: %s of %d bytes: use at most %d", ErrEnvelope, field.name, len(field.value), MaxHeader)
		}
		if !printable(field.value) {
			return fmt.Errorf("%w: %s %q: use printable ASCII", ErrEnvelope, field.name, field.value)
		}
	}
	return nil
}

// ParseEnvelope decodes and checks a message taken from a calls stream.
func ParseEnvelope(subject string, h nats.Header, body []byte) (Envelope, error) {
	function, ok := ParseFunction(subject)
	if !ok {
		return Envelope{}, fmt.Errorf("%w: subject %q names no function", ErrEnvelope, subject)
	}
	e := Envelope{
		Function:       function,
		Call:           get(h, headerCall),
		Method:         get(h, headerMethod),
		Reply:          get(h, headerReply),
		IdempotencyKey: get(h, headerKey),
		ContentType:    get(h, headerContentType),
		Traceparent:    get(h, headerTrace),
		Callback:       get(h, headerCallback),
		Spawned:        get(h, headerSpawned) != "",
		Stream:         get(h, headerStream) != "",
		Again:          get(h, headerAgain) != "",
		Body:           body,
	}
	var err error
	if e.Payload, err = parsePayload(h, body); err != nil {
		return Envelope{}, err
	}
	if e.Attempt, err = number(h, headerAttempt, 0, 1_000_000); err != nil {
		return Envelope{}, err
	}
	published, err := number(h, headerPublished, 0, maxNanos)
	if err != nil {
		return Envelope{}, err
	}
	e.Published = time.Unix(0, int64(published))
	deadline, err := number(h, headerDeadline, 0, maxNanos/1_000_000)
	if err != nil {
		return Envelope{}, err
	}
	if deadline > 0 {
		e.Deadline = time.UnixMilli(int64(deadline))
	}
	if keep := get(h, headerKeep); keep != "" {
		if e.Keep, err = time.ParseDuration(keep); err != nil || e.Keep < 0 {
			return Envelope{}, fmt.Errorf("%w: %s %q: use a duration", ErrEnvelope, headerKeep, keep)
		}
	}
	return e, e.check()
}

const maxNanos = 1<<63 - 1

func number(h nats.Header, name string, low, high int) (int, error) {
	text := get(h, name)
	if text == "" {
		return 0, nil
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < low || value > high {
		return 0, fmt.Errorf("%w: %s %q: use %d to %d", ErrEnvelope, name, text, low, high)
	}
	return value, nil
}

// set writes a header as it is: nats.Header.Set would canonicalise nothing either, but allocates.
func set(h nats.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

func setFlag(h nats.Header, name string, on bool) {
	if on {
		h[name] = []string{"1"}
	}
}

// get finds headers written by other clients in another case too.
func get(h nats.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return textproto.MIMEHeader(h).Get(name)
}

// validID accepts the 26 characters of a ULID (Crockford's base 32), as a subject token must be safe.
func validID(id string) bool {
	if len(id) != idLength {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func printable(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}
