package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
)

const (
	// lookAtBatches is how often a gateway looks whether a batch has ended whose caller wants to know; long ones less often, at most
	// every batchMaxPause.
	lookAtBatches = time.Second
	batchMaxPause = 30 * time.Second
)

// batchEnd is what a caller is told of a batch that ended.
type batchEnd struct {
	batchView

	// Counts is how many calls ended how: "done", or the kind of their error.
	Counts map[string]int64 `json:"counts"`
}

func (b *callbacks) viewEnd(ctx context.Context, batch queue.Batch) (batchEnd, error) {
	view, err := (&spawns{caller: b.caller}).viewBatch(ctx, batch)
	if err != nil {
		return batchEnd{}, err
	}
	counts, err := queue.CountEnds(ctx, b.js, batch.ID)
	return batchEnd{view, counts}, err
}

// expect notes that a batch's end is to be told, where its caller wants that.
func (b *callbacks) expect(ctx context.Context, stores *stores, batch queue.Batch) error {
	if batch.Callback == "" {
		return nil
	}
	if err := b.check(batch.Callback); err != nil {
		return err
	}
	if _, err := stores.batches.Put(ctx, batch.ID, nil); err != nil {
		return unavailable("the batch could not be recorded; try again", err)
	}
	return nil
}

// followBatches looks for the ends of the batches that are noted, until the context ends. Every gateway does: the callback of one that
// several find ended is the same message, and is told once.
func (b *callbacks) followBatches(ctx context.Context, bucket jetstream.KeyValue) error {
	watcher, err := bucket.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch batches: %w", err)
	}
	defer func() { _ = watcher.Stop() }() // fails only on a closed connection
	due := make(map[string]time.Time)
	ticker := time.NewTicker(lookAtBatches)
	defer ticker.Stop()
	for {
		select {
		case entry := <-watcher.Updates():
			switch {
			case entry == nil: // all that there were
			case entry.Operation() == jetstream.KeyValuePut:
				due[entry.Key()] = time.Time{}
			default:
				delete(due, entry.Key())
			}
		case now := <-ticker.C:
			for id, at := range due {
				if now.Before(at) {
					continue
				}
				pause, err := b.lookAt(ctx, bucket, id)
				if err != nil && ctx.Err() == nil {
					b.exchange.log.Warn().Err(err).Str("batch", id).Msg("look whether a batch ended; trying again")
				}
				due[id] = now.Add(pause)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// lookAt announces a batch's end once every call of it has ended, and says when to look again.
func (b *callbacks) lookAt(ctx context.Context, bucket jetstream.KeyValue, id string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, takeWithin)
	defer cancel()
	batch, err := queue.LoadBatch(ctx, b.nc, id)
	if errors.Is(err, queue.ErrNoBatch) {
		return batchMaxPause, nil // it is not recorded yet, or its time is over: the note's is then too
	}
	if err != nil {
		return lookAtBatches, err
	}
	ended, err := queue.Count(ctx, b.nc, queue.ResultsStream, queue.BatchResults(id))
	if err != nil || batch.Open || int64(ended) < batch.Inputs {
		return min(max(time.Since(batch.Spawned)/20, lookAtBatches), batchMaxPause), err
	}
	if err := queue.AnnounceBatchEnd(ctx, b.js, batch); err != nil {
		return lookAtBatches, err
	}
	return lookAtBatches, bucket.Purge(ctx, id)
}
