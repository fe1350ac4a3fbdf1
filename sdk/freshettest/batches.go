package freshettest

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// batches collects calls that run together.
type batches struct {
	worker *worker

	mu      sync.Mutex
	number  uint64
	forming *batch
}

// batch is calls that wait for others, until it is sent.
type batch struct {
	calls []waiting
	late  *time.Timer
}

// waiting is a call of a batch; its number comes when it is sent.
type waiting struct {
	call   *running
	meta   wire.Call
	input  []byte
	number chan uint64 // capacity 1
}

func newBatches(w *worker) *batches { return &batches{worker: w} }

// run runs a call with others.
func (b *batches) run(ctx context.Context, call *running, meta wire.Call, input []byte) answer {
	one := waiting{call, meta, input, make(chan uint64, 1)}
	b.add(one)
	select {
	case number := <-one.number:
		return b.worker.wait(ctx, call, number, time.Now().Add(b.worker.spec.Timeout.Std()))
	case <-ctx.Done():
		b.worker.work.Go(func() { _ = b.worker.cancel(<-one.number, cancelled(ctx)) }) // every batch is sent within its wait
		return answer{err: cancelled(ctx)}
	case <-b.worker.closed:
		return answer{err: &wire.Error{Kind: wire.KindCrash, Message: "the function's worker ended"}}
	}
}

// add adds a call to the batch that forms, and sends that when it is full.
func (b *batches) add(one waiting) {
	b.mu.Lock()
	forming := b.forming
	if forming == nil {
		forming = &batch{}
		forming.late = time.AfterFunc(b.worker.spec.Batching.Wait.Std(), func() { b.send(forming) })
		b.forming = forming
	}
	forming.calls = append(forming.calls, one)
	full := len(forming.calls) == b.worker.spec.Batching.MaxSize
	if full {
		b.forming = nil
	}
	b.mu.Unlock()
	if full && forming.late.Stop() {
		b.send(forming)
	}
}

// send gives a batch to the guest.
func (b *batches) send(of *batch) {
	b.mu.Lock()
	if b.forming == of {
		b.forming = nil
	}
	b.number++
	number := b.number
	b.mu.Unlock()
	until := time.Now().Add(b.worker.spec.Timeout.Std())
	for _, one := range of.calls {
		one.meta.Deadline, one.meta.Batch = until, &wire.Batch{Number: number, Size: len(of.calls)}
		one.number <- b.worker.send(one.call, one.meta, one.input)
	}
}
