// Package leader lets one autoscaler act at a time. A lease, in NATS or in Consul, says which; its index grows with each new
// holder, and goes with all that the holder does, so that nobody obeys one that was replaced.
package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/queue"
)

// Pace of the lease. The server lets it expire by its own clock, so those of the holders need not agree.
const (
	// renewEvery is how often the holder renews, and how often others try to get it.
	renewEvery = queue.LeaseTTL / 8
	// margin is how long before the lease could expire the holder stops to act.
	margin = queue.LeaseTTL / 4
)

// leaseKey is the one key of the bucket.
const leaseKey = "autoscaler"

// Config is what an elector is made of; all of it is needed.
type Config struct {
	NATS *nats.Conn
	// Name tells this instance from others, for people.
	Name string
	Log  zerolog.Logger
}

// Elector holds the lease in NATS whenever nobody else does. New makes it, Open starts it, Close gives the lease back.
type Elector struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	name string
	log  zerolog.Logger

	sub     *nats.Subscription
	freed   chan struct{}
	cancel  context.CancelFunc
	running sync.WaitGroup
	tenure

	// What follows belongs to run. revision is of the last write, 0 without the lease.
	bucket   jetstream.KeyValue
	revision uint64
}

// New makes an elector and starts nothing.
func New(config Config) (*Elector, error) {
	js, err := jetstream.New(config.NATS)
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	return &Elector{
		nc: config.NATS, js: js, name: config.Name, log: config.Log,
		freed: make(chan struct{}, 1), tenure: newTenure(queue.LeaseTTL - margin),
	}, nil
}

// Open begins to try for the lease. Close it.
func (e *Elector) Open(ctx context.Context) error {
	sub, err := e.nc.Subscribe(queue.LeaseSubject(leaseKey), e.hear)
	if err != nil {
		return fmt.Errorf("watch the lease: %w", err)
	}
	e.sub = sub
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.running.Go(func() { e.run(ctx) })
	return nil
}

// Close gives the lease back, so that another instance acts at once.
func (e *Elector) Close() {
	_ = e.sub.Unsubscribe() // fails only on a closed connection
	e.cancel()
	e.running.Wait()
}

// hear notices that the holder gave the lease back.
func (e *Elector) hear(msg *nats.Msg) {
	if msg.Header.Get("KV-Operation") != "" {
		signal(e.freed)
	}
}

func (e *Elector) run(ctx context.Context) {
	defer e.giveBack(context.WithoutCancel(ctx))
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		if err := e.try(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn().Err(err).Msg("get or renew the autoscaler's lease; trying again")
		}
		select {
		case <-ctx.Done():
			return
		case <-e.freed:
		case <-ticker.C:
		}
	}
}

// open finds the bucket once it is there.
func (e *Elector) open(ctx context.Context) (jetstream.KeyValue, error) {
	if e.bucket == nil {
		bucket, err := e.js.KeyValue(ctx, queue.LeaseBucket)
		if err != nil {
			return nil, fmt.Errorf("open bucket: %w", err)
		}
		e.bucket = bucket
	}
	return e.bucket, nil
}

// try renews the lease, or gets it where nobody has it.
func (e *Elector) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queue.LeaseTTL-margin)
	defer cancel()
	began := time.Now()
	bucket, err := e.open(ctx)
	if err != nil {
		return err
	}
	if e.revision != 0 {
		revision, err := bucket.Update(ctx, leaseKey, []byte(e.name), e.revision)
		if err == nil {
			e.revision = revision
			e.renew(began)
			return nil
		}
		if !replaced(err) {
			return fmt.Errorf("renew: %w", err) // it may have arrived: the next renewal tells
		}
		e.revision = 0
		e.lose()
		e.log.Warn().Msg("another autoscaler acts")
	}
	revision, err := bucket.Create(ctx, leaseKey, []byte(e.name))
	if replaced(err) {
		return nil // another instance has it
	}
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	e.revision = revision
	e.hold(revision, began)
	e.log.Info().Uint64("lease", revision).Msg("this autoscaler acts")
	return nil
}

// replaced tells that somebody else wrote the lease, or that it expired.
func replaced(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

func (e *Elector) giveBack(ctx context.Context) {
	e.lose()
	if e.revision == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, queue.LeaseTTL)
	defer cancel()
	bucket, err := e.open(ctx)
	if err == nil {
		err = bucket.Delete(ctx, leaseKey, jetstream.LastRevision(e.revision))
	}
	if err != nil {
		e.log.Warn().Err(err).Msg("give the autoscaler's lease back; it expires")
	}
}
