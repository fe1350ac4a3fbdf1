package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// storeAgain is how long a call waits whose input the blob store does not give just now.
	storeAgain = time.Second
	// chunk is how much of a payload is moved at once.
	chunk = 64 << 10
)

// payloads are the inputs and outputs of a worker's calls that are too large for a message. The blob store is opened when the first
// one comes; the guest knows nothing of it.
type payloads struct {
	url      string // empty where the node has no blob store
	function queue.Function
	worker   string

	mu     sync.Mutex
	bucket *blobs.Store
}

func newPayloads(task handoff.Task, function queue.Function) *payloads {
	return &payloads{url: task.Blobs, function: function, worker: task.Identity.Alloc}
}

func (p *payloads) store(ctx context.Context) (*blobs.Payloads, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.url == "" {
		return nil, errors.New("the node's driver has no blob store: set blobs in its configuration")
	}
	if p.bucket == nil {
		var err error
		if p.bucket, err = blobs.Open(ctx, p.url); err != nil {
			return nil, err
		}
	}
	return p.bucket.Payloads(), nil
}

// close lets go of the blob store; no call runs any more.
func (p *payloads) close() error {
	if p.bucket == nil {
		return nil
	}
	return p.bucket.Close()
}

// input opens the input of a call. A store that does not answer is no fault of the call: it goes back to the queue.
func (p *payloads) input(ctx context.Context, input *queue.Payload) (*blobs.PayloadReader, *outcome) {
	store, err := p.store(ctx)
	var in *blobs.PayloadReader
	if err == nil {
		in, err = store.Open(ctx, input.Name, blobs.Written{Size: input.Size, Sum: input.Sum})
	}
	switch {
	case err == nil:
		return in, nil
	case errors.Is(err, blobs.ErrNotFound), errors.Is(err, blobs.ErrDigest):
		return nil, &outcome{err: lostInput(err)}
	}
	select {
	case <-time.After(storeAgain):
	case <-ctx.Done():
	}
	return nil, &outcome{err: lostInput(err), unsent: true}
}

func lostInput(err error) *wire.Error {
	return &wire.Error{Kind: wire.KindPayload, Message: "the call's input cannot be read: " + err.Error()}
}

// transfer moves the large input and output of one attempt over the stream that it has with the guest.
type transfer struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing moves any more; what is below is then set
	// lost is what went wrong with the input, failed with the output.
	lost, failed *wire.Error
	output       *queue.Payload
}

// transfer opens the stream of a call; input is nil for a call whose input it has.
func (g *guest) transfer(number uint64, call *running, input *blobs.PayloadReader) *transfer {
	ctx, cancel := context.WithCancel(g.life)
	t := &transfer{cancel: cancel, done: make(chan struct{})}
	g.reading.Go(func() {
		defer close(t.done)
		defer cancel()
		name := queue.OutputName(g.payloads.function, call.id, call.attempt, g.payloads.worker)
		err := g.move(ctx, t, number, name, input)
		if err != nil && !errors.As(err, &t.failed) {
			t.failed = &wire.Error{Kind: wire.KindPayload, Message: "the call's output could not be stored: " + err.Error()}
		}
	})
	return t
}

func (g *guest) move(ctx context.Context, t *transfer, number uint64, name string, input *blobs.PayloadReader) error {
	if input != nil {
		defer func() { _ = input.Close() }() // read only
	}
	conn, err := g.streams.OpenFor(ctx, number)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it may be closed already
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var feeding sync.WaitGroup
	defer feeding.Wait()
	feeding.Go(func() {
		if input != nil {
			if _, err := io.CopyBuffer(conn, onlyReader{input}, make([]byte, chunk)); err != nil {
				if input.Failed() != nil {
					t.lost = lostInput(input.Failed())
					_ = conn.Fail(t.lost) // a guest that is gone needs no answer
				}
				return // the guest does not want all of it
			}
		}
		_ = conn.CloseWrite() // as above
	})
	t.output, err = g.keep(ctx, name, bufio.NewReaderSize(conn, chunk))
	_ = conn.Close() // the guest has sent all it wants to: it reads no more either
	return err
}

// onlyReader hides what would have io.Copy choose a buffer of its own.
type onlyReader struct{ io.Reader }

// keep stores an output; nil when the guest sent none.
func (g *guest) keep(ctx context.Context, name string, out *bufio.Reader) (*queue.Payload, error) {
	if _, err := out.Peek(1); err != nil {
		return nil, nil // it ended without any, or broke off: its result says which
	}
	store, err := g.payloads.store(ctx)
	if err != nil {
		return nil, err
	}
	written, err := store.Put(ctx, name, out, queue.MaxPayload)
	if errors.Is(err, blobs.ErrTooLong) {
		return nil, &wire.Error{Kind: wire.KindUser, Type: "output", Message: fmt.Sprintf("the output is longer than %d bytes", queue.MaxPayload)}
	}
	if err != nil {
		return nil, err
	}
	return &queue.Payload{Name: name, Size: written.Size, Sum: written.Sum}, nil
}

// takeInput opens a call's large input, if it has one.
func (g *guest) takeInput(ctx context.Context, input *queue.Payload) (*blobs.PayloadReader, int64, *outcome) {
	switch {
	case input == nil:
		return nil, 0, nil
	case !g.takesLarge:
		return nil, 0, &outcome{err: &wire.Error{Kind: wire.KindInput, Message: fmt.Sprintf(
			"the function takes no inputs over %d bytes: its program's SDK, or its node, does not", queue.MaxInline)}}
	}
	in, refused := g.payloads.input(ctx, input)
	return in, input.Size, refused
}

// large opens the stream of a call whose guest asks for it.
func (g *guest) large(msg wire.Message) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	call := g.calls[msg.Call]
	if call == nil || call.transfer != nil || g.payloads.url == "" {
		return fmt.Errorf("%w: call number %d asks for a stream, which it has or cannot get", wire.ErrType, msg.Call)
	}
	call.transfer = g.transfer(msg.Call, call, nil)
	return nil
}

// moved completes the outcome of a call that has a stream.
func (g *guest) moved(call *running, deadline time.Time, end outcome) outcome {
	g.mu.Lock()
	t := call.transfer
	g.mu.Unlock()
	if t == nil {
		if end.large {
			end.err = &wire.Error{Kind: wire.KindProtocol, Message: "the function's process answered with a stream that it has not"}
		}
		return end
	}
	if !end.large {
		t.cancel()
	}
	timer := time.AfterFunc(time.Until(deadline), t.cancel)
	<-t.done
	timer.Stop()
	switch {
	case t.lost != nil && (end.err == nil || end.err.Kind == wire.KindUser): // what the guest made of the rest does not count
		end.err = t.lost
	case end.err == nil && end.large && t.failed != nil:
		end.err = t.failed
	case end.err == nil && end.large && t.output == nil:
		end.err = &wire.Error{Kind: wire.KindTimeout, Message: "the output was not stored before the call's timeout"}
	case end.err == nil && end.large:
		end.payload = t.output
	}
	return end
}

// ready notes what a guest can do.
func (g *guest) ready(msg wire.Message) error {
	if len(msg.Meta) == 0 {
		return nil
	}
	var meta wire.Ready
	if err := msg.DecodeMeta(&meta); err != nil {
		return err
	}
	g.takesLarge = meta.Payloads && g.payloads.url != ""
	return nil
}
