package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// CallbacksStream is a work queue of calls that ended and whose callers are to be told.
	CallbacksStream = "FRESHET_CALLBACKS"
	// CallbacksConsumer is the consumer that all gateways share.
	CallbacksConsumer = "gateways"
	headerCallback    = "Freshet-Callback"
	// callbackAge is how long somebody is tried to be told.
	callbackAge = 3 * 24 * time.Hour
	// callbackWait is how long a gateway may take for one try.
	callbackWait = time.Minute
)

func callbacksSubject(call string) string { return "freshet.callbacks." + call }

// AnnounceEnd has the gateways tell the caller that a call has ended, where the caller wants to be told. The call's result must be
// stored, and the call still be in its queue: whoever dies in between has it announced again, which tells the caller once more at worst.
func AnnounceEnd(ctx context.Context, js jetstream.JetStream, e Envelope) error {
	if e.Callback == "" {
		return nil
	}
	return announce(ctx, js, e.Function, e.Call, e.Callback)
}

// announce has the gateways tell the end of a call or a batch.
func announce(ctx context.Context, js jetstream.JetStream, function Function, id, address string) error {
	msg := &nats.Msg{Subject: callbacksSubject(id), Data: []byte(function.tokens()), Header: nats.Header{
		nats.MsgIdHdr: {id}, headerCall: {id}, headerCallback: {address},
	}}
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("announce the end of %s: %w", id, err)
	}
	return nil
}

// ParseCallback reads a message of CallbacksStream: which call or batch ended, and where its caller wants to be told.
func ParseCallback(h nats.Header) (call, address string) {
	return get(h, headerCall), get(h, headerCallback)
}

func callbacksConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: CallbacksStream, Subjects: []string{callbacksSubject("*")}, Storage: jetstream.FileStorage, Replicas: s.Replicas,
		Retention: jetstream.WorkQueuePolicy, MaxAge: callbackAge, Duplicates: duplicateWindow,
	}
}

// OpenCallbacks makes the consumer that gateways share: each callback goes to one of them at a time.
func OpenCallbacks(ctx context.Context, js jetstream.JetStream, atOnce int) (jetstream.Consumer, error) {
	consumer, err := js.CreateOrUpdateConsumer(ctx, CallbacksStream, jetstream.ConsumerConfig{
		Durable: CallbacksConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: callbackWait, MaxDeliver: -1, MaxAckPending: atOnce,
	})
	if err != nil {
		return nil, fmt.Errorf("ensure consumer of %s: %w", CallbacksStream, err)
	}
	return consumer, nil
}
