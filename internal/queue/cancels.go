package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Cancel writes down that a call or a batch of the function is cancelled: workers that run it hear it at once, those that come
// later read it. A call's result must be stored before: what a worker finds written here it does not run.
func Cancel(ctx context.Context, js jetstream.JetStream, function Function, id string) error {
	if _, err := js.Publish(ctx, function.CancelSubject(id), nil); err != nil {
		return fmt.Errorf("cancel %s: %w", id, err)
	}
	return nil
}

const (
	// beingStored is the server's code when a message under the same subject is not yet with the replicas.
	beingStored jetstream.ErrorCode = 10164
	// endAgain is the pause before a result is stored again that met another one on its way.
	endAgain = 50 * time.Millisecond
)

// End stores how a call ended, unless it ended before: the first result wins, and End returns the one that stands. It is for
// those who end calls without running them, and tells no caller.
func End(ctx context.Context, js jetstream.JetStream, r Result) (Result, error) {
	msg, err := r.Message(ResultSubject(r.Call))
	if err != nil {
		return Result{}, err
	}
	setTTL(msg.Header, r.Keep)
	var refused *jetstream.APIError
	for {
		_, err = js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(0))
		if !errors.As(err, &refused) || refused.ErrorCode != beingStored {
			break
		}
		select { // a result is on its way to the replicas: perhaps this one, which nats.go sent again
		case <-time.After(endAgain):
		case <-ctx.Done():
			return Result{}, fmt.Errorf("store result of call %s: %w", r.Call, err)
		}
	}
	if errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return LoadResult(ctx, js, r.Call)
	}
	if err != nil {
		return Result{}, fmt.Errorf("store result of call %s: %w", r.Call, err)
	}
	return r, nil
}

// cancels are the function's cancelled calls and batches, as a worker knows them: looking costs nothing on a call's way.
type cancels struct {
	mu  sync.Mutex
	ids map[string]struct{}
	sub *nats.Subscription
}

// open listens for cancellations and gives each to hear. load reads those from before.
func (c *cancels) open(nc *nats.Conn, function Function, hear func(id string)) error {
	c.ids = make(map[string]struct{})
	sub, err := nc.Subscribe(function.CancelSubject("*"), func(msg *nats.Msg) {
		id := CallOfReply(msg.Subject)
		c.add(id)
		hear(id)
	})
	if err != nil {
		return fmt.Errorf("subscribe to cancellations of %s: %w", function, err)
	}
	c.sub = sub
	return nil
}

// load reads what was cancelled while nobody listened.
func (c *cancels) load(ctx context.Context, nc *nats.Conn, function Function, hear func(id string)) error {
	const most = 1000
	query := Query{Stream: CancelsStream, Subject: function.CancelSubject("*"), Limit: most}
	for {
		page, err := Read(ctx, nc, query)
		if err != nil {
			return fmt.Errorf("load cancellations of %s: %w", function, err)
		}
		for _, msg := range page.Messages {
			id := CallOfReply(msg.Subject)
			query.From = msg.Sequence + 1
			if c.add(id) {
				hear(id)
			}
		}
		if page.Pending == 0 || len(page.Messages) == 0 {
			return nil
		}
	}
}

func (c *cancels) add(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.ids[id]
	c.ids[id] = struct{}{}
	return !known
}

func (c *cancels) has(call string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ids) == 0 {
		return false
	}
	if _, ok := c.ids[call]; ok {
		return true
	}
	_, ok := c.ids[BatchOf(call)]
	return ok
}

func (c *cancels) close() {
	if c.sub != nil {
		_ = c.sub.Unsubscribe() // fails only on a closed connection
	}
}
