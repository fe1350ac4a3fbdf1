package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// FailedAttempt is an attempt of a call that did not end with an output.
type FailedAttempt struct {
	// Attempt counts from 1.
	Attempt int `json:"attempt"`
	// Worker is the allocation that ran it, Ended when it failed, and Took how long the guest had it.
	Worker string        `json:"worker,omitempty"`
	Ended  time.Time     `json:"ended,omitzero"`
	Took   time.Duration `json:"took,omitempty"`
	// Error says why. Its traceback is in the call's result, of the last attempt only.
	Error wire.Error `json:"error"`
}

// RecordAttempt keeps a failed attempt of the call. Nothing waits for it: it explains, and decides nothing.
func RecordAttempt(nc *nats.Conn, call string, failed FailedAttempt) error {
	failed.Error.Traceback = ""
	data, err := json.Marshal(failed)
	if err != nil {
		return fmt.Errorf("encode attempt of call %s: %w", call, err)
	}
	if err := nc.Publish(AttemptsSubject(call), data); err != nil {
		return fmt.Errorf("record attempt of call %s: %w", call, err)
	}
	return nil
}

// LoadAttempts reads why the attempts of a call failed, up to the last one that is known to have been made. One that nobody
// recorded lost its worker.
func LoadAttempts(ctx context.Context, nc *nats.Conn, call string, made int) ([]FailedAttempt, error) {
	page, err := Read(ctx, nc, Query{Stream: AttemptsStream, Subject: AttemptsSubject(call), Limit: maxAttemptRecords})
	if err != nil {
		return nil, fmt.Errorf("load attempts of call %s: %w", call, err)
	}
	recorded := make(map[int]FailedAttempt, len(page.Messages))
	for _, msg := range page.Messages {
		var failed FailedAttempt
		if err := json.Unmarshal(msg.Data, &failed); err != nil {
			return nil, fmt.Errorf("read attempt of call %s: %w", call, err)
		}
		recorded[failed.Attempt] = failed
		made = max(made, failed.Attempt)
	}
	attempts := make([]FailedAttempt, 0, made)
	for number := max(1, made-maxAttemptRecords+1); number <= made; number++ {
		failed, ok := recorded[number]
		if !ok {
			failed = FailedAttempt{Attempt: number, Error: wire.Error{
				Kind: wire.KindLost, Message: "the worker or its node ended without a word, or was cut off from the queue",
			}}
		}
		attempts = append(attempts, failed)
	}
	return attempts, nil
}
