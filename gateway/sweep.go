package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/queue"
)

const (
	defaultGrace = time.Hour
	defaultSweep = time.Minute
	// sweptKey of the keys' bucket holds when a gateway last began to sweep: of several, one does.
	sweptKey = "payloads-swept"
	// strayAge is how long an object that no upload could have begun so long ago is kept under a name that is nobody's.
	strayAge = 24 * time.Hour
)

// sweep removes the payloads that no call needs any more (docs/decisions/0044).
type sweep struct {
	*exchange
	every, grace time.Duration
}

func newSweep(x *exchange, config Config) *sweep {
	return &sweep{x, cmp.Or(config.PayloadSweep, defaultSweep), cmp.Or(config.PayloadGrace, defaultGrace)}
}

// follow sweeps until the context ends.
func (s *sweep) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.every/2 + rand.N(s.every)): // gateways that started together do not ask together
		}
		due, err := s.due(ctx)
		if err == nil && due {
			err = s.run(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("sweep payloads; they are looked through again")
		}
	}
}

// due tells whether this gateway is the one to sweep now.
func (s *sweep) due(ctx context.Context) (bool, error) {
	stores, err := s.connected()
	if err != nil {
		return false, err
	}
	now := time.Now()
	text := []byte(strconv.FormatInt(now.UnixMilli(), 10))
	entry, err := stores.keys.Get(ctx, sweptKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		_, err = stores.keys.Create(ctx, sweptKey, text)
	} else if err == nil {
		last, _ := strconv.ParseInt(string(entry.Value()), 10, 64) // what is no time was long ago
		if now.Sub(time.UnixMilli(last)) < s.every/2 {
			return false, nil
		}
		_, err = stores.keys.Update(ctx, sweptKey, text, entry.Revision())
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return false, nil // another one was quicker
	}
	if err != nil {
		return false, fmt.Errorf("claim sweep: %w", err)
	}
	return true, nil
}

// callPayloads are all objects of one call: a listing has them one after the other.
type callPayloads struct {
	function queue.Function
	call     string
	objects  []blobs.Object
	newest   time.Time
}

func (c *callPayloads) add(object blobs.Object) {
	c.objects = append(c.objects, object)
	if object.Modified.After(c.newest) {
		c.newest = object.Modified
	}
}

// run looks through all payloads once.
func (s *sweep) run(ctx context.Context) error {
	var group callPayloads
	err := s.payloads.store.List(ctx, "", func(object blobs.Object) error {
		function, call, _, ok := queue.ParsePayloadName(object.Name)
		if !ok {
			if time.Since(object.Modified) > strayAge {
				return s.payloads.store.Remove(ctx, object)
			}
			return nil
		}
		if call != group.call || function != group.function {
			if err := s.look(ctx, group); err != nil {
				return err
			}
			group = callPayloads{function: function, call: call}
		}
		group.add(object)
		return nil
	})
	if err != nil {
		return err
	}
	return s.look(ctx, group)
}

// look removes of a call's payloads what is not needed. The order of the questions matters: a call leaves its queue once its result is
// stored, and a dead one is replayed by a mark among its payloads before anything else changes, which the last look then sees.
func (s *sweep) look(ctx context.Context, group callPayloads) error {
	if group.call == "" {
		return nil
	}
	waits, err := s.mayWait(ctx, group)
	if err != nil {
		return err
	}
	result, err := queue.LoadResultFrom(ctx, s.ready.Load().results, group.call)
	ended := err == nil
	if err != nil && !errors.Is(err, queue.ErrNoResult) {
		return err
	}
	if !ended && waits {
		return nil
	}
	_, err = queue.LoadDead(ctx, s.nc, group.call)
	dead := err == nil
	if err != nil && !errors.Is(err, queue.ErrNotDead) {
		return err
	}
	return s.remove(ctx, group, func(object blobs.Object) bool {
		_, _, kind, _ := queue.ParsePayloadName(object.Name)
		if kind == queue.PayloadOutput {
			return ended && result.Payload != nil && result.Payload.Name == object.Name
		}
		return dead
	})
}

// mayWait tells whether a call may be in its function's queue, or on its way there: unless its youngest payload is older than the
// oldest call that is. Whatever is in the queue was put there after its input, or the mark of its replay, was stored.
func (s *sweep) mayWait(ctx context.Context, group callPayloads) (bool, error) {
	if time.Since(group.newest) < s.grace {
		return true, nil
	}
	oldest, any, err := queue.Oldest(ctx, s.js, group.function)
	return any && oldest.Before(group.newest.Add(s.grace)), err
}

func (s *sweep) remove(ctx context.Context, group callPayloads, keep func(blobs.Object) bool) error {
	now := callPayloads{}
	err := s.payloads.store.List(ctx, queue.PayloadsOf(group.function, group.call), func(object blobs.Object) error {
		now.add(object)
		return nil
	})
	if err != nil || len(now.objects) != len(group.objects) || !now.newest.Equal(group.newest) {
		return err // something is going on
	}
	for _, object := range group.objects {
		if keep(object) {
			continue
		}
		if err := s.payloads.store.Remove(ctx, object); err != nil {
			return err
		}
		s.log.Debug().Str("payload", object.Name).Msg("removed a payload that no call needs")
	}
	return nil
}

// again marks that a dead call is put back into its queue, so that its input is not taken for one that nobody waits for.
func (p *payloads) again(ctx context.Context, dead queue.DeadCall) error {
	if dead.Payload == nil {
		return nil
	}
	there, err := p.store.Has(ctx, dead.Payload.Name)
	if err == nil && !there {
		return payloadProblem("the input of call "+dead.Call, blobs.ErrNotFound)
	}
	if err == nil {
		err = p.store.Mark(ctx, queue.AgainName(dead.Function, dead.Call, dead.Attempt))
	}
	if err != nil {
		return unavailable("the blob store does not answer; try again", err)
	}
	return nil
}
