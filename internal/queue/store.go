package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// storeAgain is how long the server may take to say that a result is stored before it is asked again.
const storeAgain = time.Second

// Store stores the results of one worker and tells the callers.
//
// A result leaves twice at the same time: to the stream, and to the caller's gateway as a provisional reply. The server's
// word that it is stored goes to worker and gateway alike, and only then does the gateway answer. A caller thus never reads
// a result that is not stored, and does not wait for the worker to hear that it is (docs/decisions/0006).
type Store struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	sub *nats.Subscription

	mu      sync.Mutex
	waiting map[attempt]chan error
}

// attempt is one of a call: after an outage a worker may run a call again whose first result it is still storing.
type attempt struct{ sender, call string }

// OpenStore opens the store of a worker. Close it.
func OpenStore(nc *nats.Conn, worker string) (*Store, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(yieldWait))
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	s := &Store{nc: nc, js: js, waiting: make(map[attempt]chan error)}
	if s.sub, err = nc.Subscribe(AllStoredBy(worker), s.hear); err != nil {
		return nil, fmt.Errorf("subscribe to stored results: %w", err)
	}
	return s, nil
}

// Close ends the store. Results not yet stored are given up.
func (s *Store) Close() {
	_ = s.sub.Unsubscribe() // fails only on a closed connection
}

// Put stores how a call ended, unless it ended before: the first result wins, and Put returns the one that stands. It keeps
// trying while NATS is away and returns when the server has the result, so that the call may then be acknowledged, or when
// the context ends. reply is the call's reply subject; empty when nobody waits. Who watches the results gets no copy.
func (s *Store) Put(ctx context.Context, r Result, reply string) (Result, error) {
	messages, err := s.messages(r, reply)
	if err != nil {
		return Result{}, err
	}
	said, this := make(chan error, 1), attempt{r.sender(), r.Call}
	s.mu.Lock()
	s.waiting[this] = said
	s.mu.Unlock()
	defer s.forget(this)
	again := time.NewTimer(storeAgain)
	defer again.Stop()
	for {
		for _, msg := range messages {
			if err := s.nc.PublishMsg(msg); errors.Is(err, nats.ErrConnectionClosed) {
				return Result{}, fmt.Errorf("store result of call %s: %w", r.Call, err)
			}
		}
		select {
		case err := <-said:
			if err == nil {
				return r, nil
			}
			var refused *jetstream.APIError
			if errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
				return LoadResult(ctx, s.js, r.Call)
			}
			<-again.C // the stream is not there just now
		case <-again.C:
		case <-ctx.Done():
			return Result{}, fmt.Errorf("store result of call %s: %w", r.Call, context.Cause(ctx))
		}
		again.Reset(storeAgain)
	}
}

// Tell sends a stored result to the caller.
func (s *Store) Tell(r Result, reply string) error {
	msg, err := r.Message(reply)
	if err != nil {
		return err
	}
	if err := s.nc.PublishMsg(msg); err != nil {
		return fmt.Errorf("reply to call %s: %w", r.Call, err)
	}
	return nil
}

func (s *Store) messages(r Result, reply string) ([]*nats.Msg, error) {
	stored, err := r.Message(ResultSubject(r.Call))
	if err != nil {
		return nil, err
	}
	stored.Reply = StoredSubject(reply, r)
	stored.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
	setTTL(stored.Header, r.Keep)
	if reply == "" || watched(reply) {
		return []*nats.Msg{stored}, nil
	}
	provisional, err := r.Message(reply)
	if err != nil {
		return nil, err
	}
	provisional.Header[headerProvisional] = []string{"1"}
	return []*nats.Msg{provisional, stored}, nil
}

// setTTL has the server keep a result only so long; zero leaves it to the stream.
func setTTL(h nats.Header, keep time.Duration) {
	if keep > 0 {
		h[jetstream.MsgTTLHeader] = []string{max(keep, time.Second).Truncate(time.Second).String()}
	}
}

func (s *Store) forget(this attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, this)
}

func (s *Store) hear(msg *nats.Msg) {
	sender, call, ok := ParseStored(msg.Subject)
	if !ok {
		return
	}
	s.mu.Lock()
	said := s.waiting[attempt{sender, call}]
	s.mu.Unlock()
	select {
	case said <- Published(msg):
	default: // nobody waits any more, or it is the word on a second asking
	}
}

// Provisional says that a reply counts only once its result is stored.
func Provisional(h nats.Header) bool { return len(h[headerProvisional]) > 0 }

// Published reads the server's answer to a publish: nil when it has the message, nats.ErrNoResponders when nobody serves the
// stream, a *jetstream.APIError when it refused, and another error for what is no such answer.
func Published(msg *nats.Msg) error {
	if bytes.HasPrefix(msg.Data, []byte(`{"stream":`)) { // the usual case, without decoding
		return nil
	}
	if msg.Header.Get("Status") == "503" {
		return nats.ErrNoResponders
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return fmt.Errorf("read the answer to a publish: %w", err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}
