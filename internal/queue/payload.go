package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MaxPayload is the largest input or output of a call, in bytes, unless the gateway is set to less. What is over MaxInline travels by
// reference: it is stored in the blob store first.
const MaxPayload = int64(4) << 30

// headerPayload is a reference in place of a body: name, size and sum.
const headerPayload = "Freshet-Payload"

// Payload refers to an input or output that is in the blob store, because it is too large for a message.
type Payload struct {
	// Name is where it is, as InputName or OutputName made it.
	Name string
	// Size in bytes, and the SHA-256 in lower-case hexadecimal.
	Size int64
	Sum  string
}

// What the names of payloads end in.
const (
	inputEnd  = ".in"
	outputEnd = ".out-"
	againEnd  = ".again-"
)

// InputName is where the input of a call is stored.
func InputName(f Function, call string) string { return payloadName(f, call) + inputEnd }

// OutputName is where an attempt of a call stores its output: attempts of different workers never write to the same place.
func OutputName(f Function, call string, attempt int, worker string) string {
	return payloadName(f, call) + outputEnd + strconv.Itoa(attempt) + "-" + worker
}

// AgainName is a mark that a call was put back into its queue, whose input is older.
func AgainName(f Function, call string, attempt int) string {
	return payloadName(f, call) + againEnd + strconv.Itoa(attempt)
}

func payloadName(f Function, call string) string {
	return f.Namespace + "/" + f.App + "/" + f.Name + "/" + call
}

// PayloadKind is what an object of the blob store is for a call.
type PayloadKind int

// The kinds.
const (
	PayloadInput PayloadKind = iota + 1
	PayloadOutput
	PayloadAgain
)

// ParsePayloadName reads which call's a payload is, and what.
func ParsePayloadName(name string) (f Function, call string, kind PayloadKind, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 4 {
		return f, "", 0, false
	}
	call, end, ok := strings.Cut(parts[3], ".")
	end = "." + end
	switch {
	case !ok || !validID(call):
		return f, "", 0, false
	case end == inputEnd:
		kind = PayloadInput
	case strings.HasPrefix(end, outputEnd):
		kind = PayloadOutput
	case strings.HasPrefix(end, againEnd):
		kind = PayloadAgain
	default:
		return f, "", 0, false
	}
	return Function{Namespace: parts[0], App: parts[1], Name: parts[2]}, call, kind, true
}

// PayloadsOf is what the names of a call's payloads begin with.
func PayloadsOf(f Function, call string) string { return payloadName(f, call) + "." }

// set writes the reference into a message's header.
func (p *Payload) set(h nats.Header) {
	if p != nil {
		h[headerPayload] = []string{p.Name + " " + strconv.FormatInt(p.Size, 10) + " " + p.Sum}
	}
}

// check refuses a reference that is none.
func (p *Payload) check() error {
	_, _, kind, ok := ParsePayloadName(p.Name)
	switch {
	case !ok || kind == PayloadAgain || len(p.Name) > MaxHeader || !printable(p.Name) || strings.Contains(p.Name, " "):
		return fmt.Errorf("%w: payload %q: use NAMESPACE/APP/FUNCTION/CALL and its end", ErrEnvelope, p.Name)
	case p.Size < 0:
		return fmt.Errorf("%w: payload of %d bytes", ErrEnvelope, p.Size)
	case len(p.Sum) != 64 || strings.Trim(p.Sum, "0123456789abcdef") != "":
		return fmt.Errorf("%w: payload sum %q: use 64 lower-case hex digits", ErrEnvelope, p.Sum)
	}
	return nil
}

// parsePayload reads the reference of a message; nil where there is none, as in every message that has a body.
func parsePayload(h nats.Header, body []byte) (*Payload, error) {
	if len(body) > 0 {
		return nil, nil
	}
	text := get(h, headerPayload)
	if text == "" {
		return nil, nil
	}
	fields := strings.Split(text, " ")
	if len(fields) != 3 {
		return nil, fmt.Errorf("%w: %s %q: use name, size and sum", ErrEnvelope, headerPayload, text)
	}
	size, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %q: use a size in bytes", ErrEnvelope, headerPayload, text)
	}
	p := &Payload{Name: fields[0], Size: size, Sum: fields[2]}
	return p, p.check()
}

// Oldest is when the oldest call in a function's queue was put there, waiting or running; false when there is none.
func Oldest(ctx context.Context, js jetstream.JetStream, f Function) (time.Time, bool, error) {
	stream, err := js.Stream(ctx, f.CallsStream())
	if err != nil {
		return time.Time{}, false, fmt.Errorf("open stream of %s: %w", f, err)
	}
	msg, err := stream.GetMsg(ctx, 0, jetstream.WithGetMsgSubject(f.CallsSubject()))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("find the oldest call of %s: %w", f, err)
	}
	return msg.Time, true, nil
}
