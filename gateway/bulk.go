package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
)

// Bounds of what a bulk spawn has on its way to the queue: they are all the memory that it takes, however many inputs come.
const (
	bulkWindow = 1024
	bulkBytes  = 8 << 20
	// maxBulk is how many bulk spawns go at full speed at once; more share it.
	maxBulk = 16
	// bulkRecord is how often it is written down how many inputs were accepted.
	bulkRecord = time.Second
	// bulkPause is how long a full or absent queue is left alone before the next try: the caller's stream stands still meanwhile.
	bulkPause = 100 * time.Millisecond
)

// handleBulk spawns a call for each line of the body. It reads as fast as the queue takes the calls, and answers with the batch once
// all are queued. A body that breaks off leaves the batch open: sending the inputs from where it ended completes it.
func (s *spawns) handleBulk(w http.ResponseWriter, r *http.Request) {
	t, err := s.prepare(r, "batch", "from")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	b, err := s.openBulk(r, t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	err = b.run(r)
	w.Header()["Freshet-Batch"] = []string{b.batch.ID}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Location", "/v1/batches/"+b.batch.ID)
	view, err := s.viewBatch(r.Context(), b.batch)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.respond(w, http.StatusAccepted, view)
}

// bulkSpawn is a bulk spawn on its way.
type bulkSpawn struct {
	*spawns
	target

	batch    queue.Batch
	next     int64 // the input that comes next
	again    int64 // inputs below this one may have been published by an earlier request
	sent     []jetstream.PubAckFuture
	bytes    int
	recorded time.Time
}

// bulkAhead is how many inputs beyond those recorded an earlier request may have published.
const bulkAhead = 1 << 20

func (s *spawns) openBulk(r *http.Request, t target) (*bulkSpawn, error) {
	stores, err := s.connected()
	if err != nil {
		return nil, err
	}
	b := &bulkSpawn{spawns: s, target: t}
	from, err := number(t.header.query, "from", 0, 0, queue.MaxInputs)
	if err != nil {
		return nil, err
	}
	id, known := t.header.query.Get("batch"), t.header.query.Has("batch")
	if !known {
		if id, known, err = s.newBatch(r.Context(), stores, t); err != nil {
			return nil, err
		}
	}
	if !known {
		if from != 0 {
			return nil, badInput("query parameter from", t.header.query.Get("from"), "name the batch too, or begin with input 0")
		}
		b.batch = queue.Batch{
			ID: id, Function: t.key, Open: true, Spawned: t.began, Keep: t.header.keep, Callback: first(r.Header, "Freshet-Callback"),
		}
		if err := s.callbacks.expect(r.Context(), stores, b.batch); err != nil {
			return nil, err
		}
		return b, b.save(r.Context())
	}
	if b.batch, err = s.resumed(r.Context(), t, id, from); err != nil {
		return nil, err
	}
	b.next, b.again = from, b.batch.Inputs+bulkAhead
	return b, nil
}

// newBatch makes a batch's id. A request with the key of an earlier one goes on with that one's batch, which it may not know: the
// answer that names it comes at the end.
func (s *spawns) newBatch(ctx context.Context, stores *stores, t target) (id string, known bool, err error) {
	id = queue.NewBatch(t.began)
	if t.header.key == "" {
		return id, false, nil
	}
	e := queue.Envelope{IdempotencyKey: t.header.key}
	if known, err = s.claim(ctx, stores, keyName(t.key, "batch "+t.header.key), &e, id); err != nil || !known {
		return id, false, err
	}
	switch _, err := queue.LoadBatch(ctx, s.nc, e.Call); {
	case errors.Is(err, queue.ErrNoBatch):
		return e.Call, false, nil // the earlier request got no further
	case err != nil:
		return "", false, unavailable("the batch of the idempotency key cannot be read; try again", err)
	}
	return e.Call, true, nil
}

// resumed finds the batch that a request goes on with.
func (s *spawns) resumed(ctx context.Context, t target, id string, from int64) (queue.Batch, error) {
	if err := queue.CheckID(id); err != nil || queue.InputOf(id) >= 0 {
		return queue.Batch{}, badInput("query parameter batch", id, "use the id of a batch")
	}
	batch, err := s.latest(ctx, id)
	switch {
	case err != nil:
		return batch, err
	case batch.Function != t.key:
		return batch, &problem{Kind: kindConflict, Message: "batch " + id + " is of " + batch.Function.String()}
	case !batch.Open:
		return batch, &problem{Kind: kindConflict, Message: "batch " + id + " is complete or cancelled: it takes no more inputs"}
	case from > batch.Inputs:
		return batch, badInput("query parameter from", t.header.query.Get("from"), "inputs are missing: go on from "+decimal(batch.Inputs))
	}
	return batch, nil
}

func (b *bulkSpawn) save(ctx context.Context) error {
	b.recorded = time.Now()
	if err := b.batch.Save(ctx, b.js); err != nil {
		return unavailable("the batch could not be recorded; go on with it as its record says", err)
	}
	return nil
}

// run reads the body to its end. A line that is wrong takes the whole batch back.
func (b *bulkSpawn) run(r *http.Request) error {
	ctx := r.Context()
	lines := newLineReader(r.Body)
	for {
		line, err := lines.next()
		if err != nil {
			return b.finish(ctx, err)
		}
		if err := b.add(ctx, line); err != nil {
			return b.finish(ctx, err)
		}
	}
}

func (b *bulkSpawn) finish(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeWithin) // the caller may have gone
	defer cancel()
	if err := b.settle(ctx, 0); err != nil {
		b.collect()
		return errors.Join(err, b.save(ctx))
	}
	var wrong *lineError
	switch {
	case errors.Is(cause, io.EOF):
		b.batch.Open = false
		return b.save(ctx)
	case errors.As(cause, &wrong):
		if err := b.cancelBatch(ctx, b.batch); err != nil {
			return err
		}
		wrong.Message += "; the batch is cancelled"
		return wrong
	}
	if err := b.save(ctx); err != nil {
		return err
	}
	return cause
}

// add publishes an input, once there is room.
func (b *bulkSpawn) add(ctx context.Context, line []byte) error {
	if b.next >= queue.MaxInputs {
		return &problem{Kind: kindTooLarge, Message: "body: a batch has at most " + decimal(queue.MaxInputs) + " inputs"}
	}
	e := b.spawned()
	e.Call, e.Body, e.Again = queue.CallOfInput(b.batch.ID, b.next), line, b.next < b.again
	e.IdempotencyKey, e.ContentType, e.Published = "", "application/json", time.Now()
	b.next++
	if b.next <= b.batch.Inputs {
		return nil // it was accepted before
	}
	msg, err := e.Message()
	if err != nil {
		return badInput("request", b.key.String(), err.Error())
	}
	if err := b.settle(ctx, bulkWindow-1); err != nil {
		return err
	}
	if err := b.keepPace(ctx, b.stopped); err != nil {
		return err
	}
	future, err := b.bulk.PublishMsgAsync(msg)
	if err != nil {
		return unavailable("the queue cannot be reached; go on with the batch", err)
	}
	b.sent = append(b.sent, future)
	b.bytes += len(line)
	b.hintDemand(b.key, b.stats, e.Published)
	b.stats.touched.Store(true)
	if time.Since(b.recorded) > bulkRecord {
		b.collect()
		return b.save(ctx)
	}
	return nil
}

// collect counts the calls that the queue has taken by now, without waiting for others.
func (b *bulkSpawn) collect() {
	for len(b.sent) > 0 {
		select {
		case <-b.sent[0].Ok():
			b.taken()
		default:
			return
		}
	}
}

// taken counts the first of the calls on their way, which the queue has.
func (b *bulkSpawn) taken() {
	b.bytes -= len(b.sent[0].Msg().Data)
	b.sent = b.sent[1:]
	b.batch.Inputs++
	b.stats.published.Inc()
}

// settle waits until at most so many calls are on their way to the queue.
func (b *bulkSpawn) settle(ctx context.Context, most int) error {
	for len(b.sent) > most || len(b.sent) > 0 && b.bytes > bulkBytes {
		future := b.sent[0]
		var err error
		select {
		case <-future.Ok():
		case err = <-future.Err():
		case <-ctx.Done():
			return ctx.Err()
		case <-b.stopped:
			return unavailable("this gateway stops; go on with the batch", nil)
		}
		if err != nil {
			if err := b.retry(ctx, future.Msg()); err != nil {
				return err
			}
		}
		b.taken()
	}
	return nil
}

// retry publishes a call until the queue has room and is there.
func (b *bulkSpawn) retry(ctx context.Context, msg *nats.Msg) error {
	for {
		select {
		case <-time.After(bulkPause):
		case <-ctx.Done():
			return ctx.Err()
		case <-b.stopped:
			return unavailable("this gateway stops; go on with the batch", nil)
		}
		if _, err := b.js.PublishMsg(ctx, msg); err == nil {
			return nil
		} else if p := asProblem(publishProblem(err)); p.Kind != kindQueueFull && p.Kind != kindUnavailable {
			return p
		}
	}
}
