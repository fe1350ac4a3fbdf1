package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// headerReason is the error that a dead call ended in, as JSON without its traceback.
const headerReason = "Freshet-Reason"

// ErrNotDead says that there is no dead call with this id: it never was one, it was replayed or removed, or its time is over.
var ErrNotDead = errors.New("no such dead call")

// maxReason bounds the message of a dead call's error, in bytes; its result has all of it.
const maxReason = 1024

// DeadCall is a call that could not be done, with its input, for whoever wants to know why and to try again.
type DeadCall struct {
	// Envelope is the call; its Attempt is how many attempts were made.
	Envelope
	// Reason is how the last attempt ended.
	Reason wire.Error
	// Died is when.
	Died time.Time

	sequence uint64
}

// Dead tells whether a call that ended so is kept as a dead one. What ends its workers always is; other errors are when nobody
// waited for the result, but for those that no other attempt can mend.
func Dead(e Envelope, reason *wire.Error) bool {
	switch reason.Kind {
	case wire.KindCrash, wire.KindMemory, wire.KindProtocol, wire.KindLost:
		return true
	case wire.KindUser, wire.KindTimeout, wire.KindStart, wire.KindPayload:
		return e.Spawned
	case wire.KindInput, wire.KindCancelled, wire.KindExpired:
	}
	return false
}

// Bury keeps a call as a dead one, over what was kept of it before.
func Bury(ctx context.Context, js jetstream.JetStream, dead DeadCall) error {
	dead.Reason.Traceback = ""
	dead.Reason.Message = dead.Reason.Message[:min(len(dead.Reason.Message), maxReason)]
	reason, err := json.Marshal(dead.Reason)
	if err != nil {
		return fmt.Errorf("encode reason of call %s: %w", dead.Call, err)
	}
	msg, err := dead.Message()
	if err != nil {
		return err
	}
	msg.Subject = dead.Function.DeadSubject(dead.Call)
	delete(msg.Header, nats.MsgIdHdr) // it dies again when a replay fails
	msg.Header[headerReason] = []string{string(reason)}
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("keep dead call %s: %w", dead.Call, err)
	}
	return nil
}

// ParseDead reads a record of DeadStream.
func ParseDead(record Stored) (DeadCall, error) {
	tokens := strings.Split(strings.TrimPrefix(record.Subject, deadPrefix), ".")
	if len(tokens) != 4 {
		return DeadCall{}, fmt.Errorf("read dead call: %w: subject %q", ErrStream, record.Subject)
	}
	function := Function{Namespace: tokens[0], App: tokens[1], Name: tokens[2]}
	envelope, err := ParseEnvelope(function.CallsSubject(), record.Header, record.Data)
	if err != nil {
		return DeadCall{}, fmt.Errorf("read dead call %s: %w", tokens[3], err)
	}
	dead := DeadCall{Envelope: envelope, Died: record.Time, sequence: record.Sequence}
	if err := json.Unmarshal([]byte(get(record.Header, headerReason)), &dead.Reason); err != nil {
		return DeadCall{}, fmt.Errorf("read reason of dead call %s: %w", tokens[3], err)
	}
	return dead, nil
}

// LoadDead finds a dead call; ErrNotDead when there is none.
func LoadDead(ctx context.Context, nc *nats.Conn, call string) (DeadCall, error) {
	record, found, err := findLast(ctx, nc, DeadStream, AnyDeadSubject(call))
	if err != nil {
		return DeadCall{}, err
	}
	if !found {
		return DeadCall{}, fmt.Errorf("call %s: %w", call, ErrNotDead)
	}
	return ParseDead(record)
}

// Forget removes a dead call; it may be gone already.
func (d DeadCall) Forget(ctx context.Context, js jetstream.JetStream) error {
	stream, err := js.Stream(ctx, DeadStream)
	if err == nil {
		err = stream.DeleteMsg(ctx, d.sequence)
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("remove dead call %s: %w", d.Call, err)
	}
	return nil
}

// Replay puts a dead call back into its function's queue, under its own id: its old result goes, its attempts are counted on,
// and it gets as many more as its function's retries allow. A replay that is cut short can be repeated.
func (d DeadCall) Replay(ctx context.Context, js jetstream.JetStream) error {
	results, err := js.Stream(ctx, ResultsStream)
	if err != nil {
		return fmt.Errorf("open %s: %w", ResultsStream, err)
	}
	if err := results.Purge(ctx, jetstream.WithPurgeSubject(ResultSubject(d.Call))); err != nil {
		return fmt.Errorf("forget result of call %s: %w", d.Call, err)
	}
	envelope := d.Envelope
	envelope.Reply, envelope.Deadline, envelope.Published, envelope.Spawned = "", time.Time{}, time.Now(), true
	msg, err := envelope.Message()
	if err != nil {
		return err
	}
	msg.Header[nats.MsgIdHdr] = []string{fmt.Sprintf("%s.%d", d.Call, d.Attempt)}
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("publish call %s: %w", d.Call, err)
	}
	return d.Forget(ctx, js)
}
