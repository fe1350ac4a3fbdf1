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
)

// ErrNoBatch says that there is no such batch: nobody spawned it, or its time is over.
var ErrNoBatch = errors.New("no such batch")

// Batch is what is recorded of a batch. How its calls ended is in their results.
type Batch struct {
	// ID is the batch's, and Function whose calls it holds.
	ID       string   `json:"-"`
	Function Function `json:"-"`
	// Inputs is how many inputs were accepted; inputs from 0 to Inputs-1 are queued or done.
	Inputs int64 `json:"inputs"`
	// Open says that more inputs may come.
	Open bool `json:"open,omitempty"`
	// Spawned is when the first input was accepted.
	Spawned time.Time `json:"spawned"`
	// Keep is how long the results are kept; zero means the stream's own maximum.
	Keep time.Duration `json:"keep,omitempty"`
	// Sequence is where the call stands in its function's queue, for a batch of one input.
	Sequence uint64 `json:"sequence,omitempty"`
	// Callback is where the caller wants to be told that the whole batch ended; empty when it does not.
	Callback string `json:"callback,omitempty"`
	// Cancelled is when the batch was cancelled.
	Cancelled time.Time `json:"cancelled,omitzero"`
}

// Save records a batch, over what was recorded of it before.
func (b Batch) Save(ctx context.Context, js jetstream.JetStream) error {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode batch %s: %w", b.ID, err)
	}
	if _, err := js.Publish(ctx, b.Function.BatchSubject(b.ID), data); err != nil {
		return fmt.Errorf("record batch %s: %w", b.ID, err)
	}
	return nil
}

// LoadBatch finds the batch that a call belongs to; ErrNoBatch when there is none.
func LoadBatch(ctx context.Context, nc *nats.Conn, call string) (Batch, error) {
	record, found, err := findLast(ctx, nc, BatchesStream, AnyBatchSubject(BatchOf(call)))
	if err != nil {
		return Batch{}, err
	}
	if !found {
		return Batch{}, fmt.Errorf("call %s: %w", call, ErrNoBatch)
	}
	b, err := ParseBatch(record)
	if err == nil && b.Open { // it may be complete by now: whoever reads its results to the end must know
		return b.Latest(ctx, nc)
	}
	return b, err
}

// Latest is the batch as it was recorded last, for those who will record it anew: what LoadBatch found may be older.
func (b Batch) Latest(ctx context.Context, nc *nats.Conn) (Batch, error) {
	record, found, err := lastByLeader(ctx, nc, BatchesStream, b.Function.BatchSubject(b.ID))
	if err != nil {
		return Batch{}, err
	}
	if !found {
		return Batch{}, fmt.Errorf("batch %s: %w", b.ID, ErrNoBatch)
	}
	return ParseBatch(record)
}

// ParseBatch reads a record of BatchesStream.
func ParseBatch(record Stored) (Batch, error) {
	var b Batch
	tokens := strings.Split(strings.TrimPrefix(record.Subject, batchesPrefix), ".")
	if len(tokens) != 4 {
		return b, fmt.Errorf("read batch: %w: subject %q", ErrStream, record.Subject)
	}
	if err := json.Unmarshal(record.Data, &b); err != nil {
		return b, fmt.Errorf("read batch %s: %w", tokens[3], err)
	}
	b.Function, b.ID = Function{Namespace: tokens[0], App: tokens[1], Name: tokens[2]}, tokens[3]
	return b, nil
}

// Filter is the tokens of a function and one more: a wildcard stands for that one and for each empty part of the function.
func (f Function) Filter() string {
	return anyOf(f.Namespace) + "." + anyOf(f.App) + "." + anyOf(f.Name) + ".*"
}

// BatchesOf is the subject of all batches of a function; an empty part of it stands for all.
func BatchesOf(f Function) string { return batchesPrefix + f.Filter() }

// DeadOf is the subject of all dead calls of a function; an empty part of it stands for all.
func DeadOf(f Function) string { return deadPrefix + f.Filter() }

func anyOf(token string) string {
	if token == "" {
		return "*"
	}
	return token
}
