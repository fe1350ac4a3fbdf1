package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

const (
	// useSuffix ends the key under which it is kept when a token was last used: apart from the token, which gateways follow.
	useSuffix = ".used"
	// useEvery is how often that is written of a token at most, useLook how soon its first use is.
	useEvery = time.Minute
	useLook  = time.Second
	// useFlush bounds the writing when a gateway stops.
	useFlush = 2 * time.Second
)

// usage is when a token was last used at this gateway: requests only note it.
type usage struct {
	last    atomic.Int64 // in nanoseconds of Unix time; 0 for never
	saved   int64        // what of that is written down
	written time.Time    // when it was
}

func (u *usage) note(now time.Time) { u.last.Store(now.UnixNano()) }

func (u *usage) time() time.Time {
	if last := u.last.Load(); last > 0 {
		return time.Unix(0, last).UTC()
	}
	return time.Time{}
}

// useRecorder writes down when tokens were last used.
type useRecorder struct {
	tokens *tokens
	bucket jetstream.KeyValue
	log    zerolog.Logger
}

func (u *useRecorder) run(ctx context.Context) {
	ticker := time.NewTicker(useLook)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			u.save(ctx, now.Add(-useEvery))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), useFlush)
			defer cancel()
			u.save(last, time.Now())
			return
		}
	}
}

// save writes down the uses of the tokens of which that was not done since a time.
func (u *useRecorder) save(ctx context.Context, since time.Time) {
	u.tokens.mu.RLock()
	all := slices.Collect(maps.Values(u.tokens.byID))
	u.tokens.mu.RUnlock()
	for _, t := range all {
		last := t.use.last.Load()
		if last == t.use.saved || t.use.written.After(since) {
			continue
		}
		t.use.written = time.Now() // one that cannot be written is tried again as late
		if err := u.write(ctx, t.ID, t.use.time()); err != nil {
			u.log.Warn().Err(err).Str("token", t.ID).Msg("write down when a token was used; trying again")
			continue
		}
		t.use.saved = last
	}
}

// write leaves a later use, which another gateway saw, and what was revoked.
func (u *useRecorder) write(ctx context.Context, id string, used time.Time) error {
	before, err := readUse(ctx, u.bucket, id)
	if err != nil {
		return err
	}
	if !used.After(before) {
		return nil
	}
	if _, err := u.bucket.PutString(ctx, id+useSuffix, used.Format(time.RFC3339Nano)); err != nil {
		return fmt.Errorf("write use: %w", err)
	}
	if _, err := u.bucket.Get(ctx, id); errors.Is(err, jetstream.ErrKeyNotFound) {
		return u.bucket.Purge(ctx, id+useSuffix) // it was revoked in this moment
	}
	return nil
}

// readUse is when the record says that a token was last used; zero where there is none.
func readUse(ctx context.Context, bucket jetstream.KeyValue, id string) (time.Time, error) {
	entry, err := bucket.Get(ctx, id+useSuffix)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read use: %w", err)
	}
	used, err := time.Parse(time.RFC3339Nano, string(entry.Value()))
	if err != nil {
		return time.Time{}, fmt.Errorf("read use of token %s: %w", id, err)
	}
	return used, nil
}
