package stream

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// Bodies are a guest's streams that belong to calls: the inputs and outputs that are too large for a message.
type Bodies struct {
	writer *wire.Writer

	mu    sync.Mutex
	calls map[uint64]*body
}

// body is the stream of one call.
type body struct {
	conn chan *Conn // capacity 1
	over chan struct{}
	sent bool
}

// NewBodies asks for streams by a session's writer.
func NewBodies(writer *wire.Writer) *Bodies {
	return &Bodies{writer: writer, calls: make(map[uint64]*body)}
}

// Serve takes a stream that the host opened for a call; give it to an Acceptor for each stream whose Call is not 0.
func (b *Bodies) Serve(conn *Conn) {
	b.mu.Lock()
	of := b.calls[conn.Call()]
	b.mu.Unlock()
	if of == nil {
		_ = conn.Fail(&wire.Error{Kind: wire.KindCancelled, Message: "the call has ended"}) // a session that is gone needs no answer
		return
	}
	if conn.Accept() != nil {
		return
	}
	select {
	case of.conn <- conn:
		<-of.over
	case <-of.over:
	}
}

// Begin expects a stream for a call, which the host opens because of its input. End it.
func (b *Bodies) Begin(call uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginLocked(call)
}

func (b *Bodies) beginLocked(call uint64) *body {
	of := &body{conn: make(chan *Conn, 1), over: make(chan struct{})}
	b.calls[call] = of
	return of
}

// Open waits for the stream of a call; it asks for one that was not begun.
func (b *Bodies) Open(ctx context.Context, call uint64) (*Conn, error) {
	b.mu.Lock()
	of, begun := b.calls[call]
	if !begun {
		of = b.beginLocked(call)
	}
	b.mu.Unlock()
	if !begun {
		if err := b.writer.Write(wire.TypeLarge, call, nil, nil); err != nil {
			return nil, err
		}
	}
	select {
	case conn := <-of.conn:
		of.conn <- conn // for whoever opens it next
		return conn, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Send sends a call's output by its stream, to its end. The call's result must say so; Sent tells.
func (b *Bodies) Send(ctx context.Context, call uint64, output io.Reader) error {
	conn, err := b.Open(ctx, call)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{output}, make([]byte, maxChunk)); err != nil {
		return fmt.Errorf("send output: %w", err)
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if of := b.calls[call]; of != nil {
		of.sent = true
	}
	return nil
}

// Sent tells whether a call's output was sent by its stream.
func (b *Bodies) Sent(call uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := b.calls[call]
	return of != nil && of.sent
}

// End closes the stream of a call, if it has one; what was written before still counts.
func (b *Bodies) End(call uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if of := b.calls[call]; of != nil {
		close(of.over)
		delete(b.calls, call)
	}
}
