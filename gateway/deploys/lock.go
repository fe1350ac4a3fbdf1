package deploys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrBusy says that the app is being deployed already.
var ErrBusy = errors.New("the app is being deployed already")

// errLost ends a deploy whose lock could not be kept.
var errLost = errors.New("the lock of the app's deploys was lost")

const (
	// lockFor is how long a lock outlives a gateway that died with it; gateways' clocks must not differ by more than some seconds.
	lockFor = 15 * time.Second
	// unlockWait bounds the release.
	unlockWait = 5 * time.Second
)

// lock is who deploys an app, and until when others believe that.
type lock struct {
	name     string
	bucket   jetstream.KeyValue
	revision uint64
	until    time.Time
}

// held is a lock as it is stored.
type held struct {
	Until time.Time `json:"until"`
}

// Lock keeps other deploys of the app away, in all gateways, until release is called. The context ends when the lock is lost. It fails
// with ErrBusy while another one holds it.
func (h History) Lock(ctx context.Context, namespace, app string) (locked context.Context, release func(), err error) {
	l := &lock{name: "_lock." + namespace + "." + app, bucket: h.Bucket} // no namespace begins with _
	if err := l.take(ctx); err != nil {
		return nil, nil, err
	}
	locked, cancel := context.WithCancelCause(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { l.keep(locked, cancel) })
	return locked, func() {
		cancel(nil)
		keeper.Wait()
		l.free(context.WithoutCancel(ctx))
	}, nil
}

func (l *lock) value() []byte {
	l.until = time.Now().Add(lockFor)
	data, err := json.Marshal(held{l.until})
	if err != nil {
		return nil // a time can be encoded
	}
	return data
}

func (l *lock) take(ctx context.Context) error {
	var err error
	l.revision, err = l.bucket.Create(ctx, l.name, l.value())
	if err == nil {
		return nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return fmt.Errorf("lock deploys: %w", err)
	}
	entry, err := l.bucket.Get(ctx, l.name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return ErrBusy // until just now
	}
	if err != nil {
		return fmt.Errorf("read lock of deploys: %w", err)
	}
	var other held
	if json.Unmarshal(entry.Value(), &other) == nil && time.Now().Before(other.Until) {
		return ErrBusy
	}
	l.revision, err = l.bucket.Update(ctx, l.name, l.value(), entry.Revision()) // its gateway died
	if errors.Is(err, jetstream.ErrKeyExists) {
		return ErrBusy
	}
	if err != nil {
		return fmt.Errorf("take lock of deploys over: %w", err)
	}
	return nil
}

// keep renews the lock until the context ends, and ends it when the lock cannot be renewed in time.
func (l *lock) keep(ctx context.Context, lost context.CancelCauseFunc) {
	ticker := time.NewTicker(lockFor / 5)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		until := l.until
		revision, err := l.renew(ctx)
		switch {
		case err == nil:
			l.revision = revision
		case errors.Is(err, jetstream.ErrKeyExists) || time.Now().After(until):
			lost(errLost)
			return
		default:
			l.until = until
		}
	}
}

func (l *lock) renew(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, lockFor/5)
	defer cancel()
	return l.bucket.Update(ctx, l.name, l.value(), l.revision)
}

// free lets the next one in. When that fails the lock runs out by itself.
func (l *lock) free(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, unlockWait)
	defer cancel()
	_ = l.bucket.Purge(ctx, l.name, jetstream.LastRevision(l.revision))
}
