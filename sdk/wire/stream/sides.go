package stream

import (
	"context"
	"fmt"
	"sync"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// Opener is the host's side: it opens streams to the guest's server. Only use it with a guest whose Welcome says Streams.
type Opener struct {
	mux mux
	// opening is held until the guest is asked: the order of the numbers is that of the messages.
	opening sync.Mutex
}

// NewOpener opens streams by writing to a session's writer.
func NewOpener(writer *wire.Writer) *Opener {
	return &Opener{mux: newMux(writer, hostTypes(), guestTypes())}
}

// Open opens a stream and waits until the server is reached. An error that the guest gave is a *wire.Error.
func (o *Opener) Open(ctx context.Context) (*Conn, error) { return o.open(ctx, nil) }

// OpenFor opens the stream of a call, for its large input and output, in place of one to the server. Only use it with a guest whose
// Ready says Payloads.
func (o *Opener) OpenFor(ctx context.Context, call uint64) (*Conn, error) {
	return o.open(ctx, wire.Open{Call: call})
}

// OpenDial opens the stream that a guest asked for by TypeDial.
func (o *Opener) OpenDial(ctx context.Context, dial uint64) (*Conn, error) {
	return o.open(ctx, wire.Open{Dial: dial})
}

// open opens a stream; meta is nil for one to the guest's server.
func (o *Opener) open(ctx context.Context, meta any) (*Conn, error) {
	conn, err := o.add(meta)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the session's own errors show at the next use
	defer stop()
	conn.mu.Lock()
	defer conn.mu.Unlock()
	for !conn.opened && !conn.over && !conn.closed {
		conn.changed.Wait()
	}
	switch {
	case conn.opened && ctx.Err() == nil:
		return conn, nil
	case conn.failed != nil:
		return nil, fmt.Errorf("open stream: %w", conn.failed)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("open stream: %w", context.Cause(ctx))
	}
	return nil, fmt.Errorf("open stream: the guest closed it")
}

// add registers a stream and asks for it.
func (o *Opener) add(meta any) (*Conn, error) {
	o.opening.Lock()
	defer o.opening.Unlock()
	conn, err := o.mux.next()
	if err != nil {
		return nil, err
	}
	if err := o.mux.send(wire.TypeOpen, conn.number, meta, nil); err != nil {
		o.mux.forget(conn.number)
		return nil, err
	}
	return conn, nil
}

// Handle takes a message of the guest for which Type.Stream says true. It never waits. An error says how the guest broke the
// protocol: nothing more of it can be trusted.
func (o *Opener) Handle(msg wire.Message) error {
	if msg.Type != wire.TypeOpened {
		return o.mux.handle(msg)
	}
	conn, err := o.mux.find(msg)
	if err != nil || conn == nil {
		return err
	}
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if conn.opened {
		return fmt.Errorf("%w: stream %d was opened twice", wire.ErrType, conn.number)
	}
	conn.opened = true
	conn.changed.Broadcast()
	return nil
}

// Close ends all streams, because the session is over: their users get the cause, as does whoever opens another one.
func (o *Opener) Close(cause error) { o.mux.shut(cause) }

// Acceptor is the guest's side: it takes streams that the host opens.
type Acceptor struct {
	mux   mux
	serve func(*Conn)
	work  sync.WaitGroup
}

// NewAcceptor answers by a session's writer. Each stream is given to serve, in a goroutine of its own: it accepts or refuses it,
// and the stream ends when it returns.
func NewAcceptor(writer *wire.Writer, serve func(*Conn)) *Acceptor {
	return &Acceptor{mux: newMux(writer, guestTypes(), hostTypes()), serve: serve}
}

// Accept tells the host that the server is reached. Data may be written from then on.
func (c *Conn) Accept() error {
	return c.mux.send(wire.TypeOpened, c.number, nil, nil)
}

// Fail closes a stream and tells the other side why: one that was not accepted, or one whose server broke it off.
func (c *Conn) Fail(reason *wire.Error) error { return c.closeWith(reason) }

// Handle takes a message of the host for which Type.Stream says true. It never waits for a stream.
func (a *Acceptor) Handle(msg wire.Message) error {
	if msg.Type != wire.TypeOpen {
		return a.mux.handle(msg)
	}
	var meta wire.Open
	if len(msg.Meta) > 0 {
		if err := msg.DecodeMeta(&meta); err != nil {
			return err
		}
	}
	m := &a.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if msg.Call <= m.last {
		return fmt.Errorf("%w: stream %d was opened after stream %d", wire.ErrType, msg.Call, m.last)
	}
	m.last = msg.Call
	conn := newConn(m, msg.Call)
	conn.call, conn.dial = meta.Call, meta.Dial
	m.conns[conn.number] = conn
	a.work.Go(func() {
		defer func() { _ = conn.Close() }() // it may be closed already, or the session gone
		a.serve(conn)
	})
	return nil
}

// CloseAll closes the streams that are open.
func (a *Acceptor) CloseAll() {
	a.mux.mu.Lock()
	conns := a.mux.allLocked()
	a.mux.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // when the session is gone, so are they
	}
}

// Close ends all streams because the session is over, and waits until all that serves them returned.
func (a *Acceptor) Close(cause error) {
	a.mux.shut(cause)
	a.work.Wait()
}
