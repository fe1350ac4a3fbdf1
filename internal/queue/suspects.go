package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// suspectPrefix stands before a call's id in KeysBucket. Names of idempotency keys are 64 hex digits, so none begins so.
const suspectPrefix = "suspect."

// MarkSuspect notes that a worker died while it ran the call and others, for whoever runs it next. The mark goes when
// idempotency keys do, after a day.
func MarkSuspect(ctx context.Context, js jetstream.JetStream, call string) error {
	marks, err := js.KeyValue(ctx, KeysBucket)
	if err == nil {
		_, err = marks.Put(ctx, suspectPrefix+call, nil)
	}
	if err != nil {
		return fmt.Errorf("mark call %s: %w", call, err)
	}
	return nil
}

// Suspect tells whether the call was marked.
func Suspect(ctx context.Context, js jetstream.JetStream, call string) (bool, error) {
	marks, err := js.KeyValue(ctx, KeysBucket)
	if err == nil {
		_, err = marks.Get(ctx, suspectPrefix+call)
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the mark of call %s: %w", call, err)
	}
	return true, nil
}
