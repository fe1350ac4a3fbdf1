package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// Dials are a guest's connections to the gateway, by streams that it asks its host for.
type Dials struct {
	writer *wire.Writer

	// asking is held until the host is asked: the order of the numbers is that of the messages.
	asking  sync.Mutex
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *dialed // capacity 1
	open    map[*dialed]bool
	ended   chan struct{} // closed by End
}

// dialed is a connection that is its user's until the user closes it: what came before the peer's end can be read after it.
type dialed struct {
	*Conn

	once sync.Once
	over chan struct{}
}

// Close ends the connection.
func (d *dialed) Close() error {
	d.once.Do(func() { close(d.over) })
	return d.Conn.Close()
}

// NewDials asks for streams by a session's writer.
func NewDials(writer *wire.Writer) *Dials {
	return &Dials{writer: writer, waiting: make(map[uint64]chan *dialed), open: make(map[*dialed]bool), ended: make(chan struct{})}
}

// Dial connects to the gateway. Only use it with a host whose Hello says Gateway.
func (d *Dials) Dial(ctx context.Context) (net.Conn, error) {
	number, conns, err := d.ask()
	if err != nil {
		return nil, fmt.Errorf("reach the gateway: %w", err)
	}
	select {
	case conn := <-conns:
		return conn, nil
	case <-ctx.Done():
	}
	d.mu.Lock()
	delete(d.waiting, number)
	d.mu.Unlock()
	select {
	case conn := <-conns: // it came just now
		_ = conn.Close() // nobody used it
	default:
	}
	return nil, fmt.Errorf("reach the gateway: %w", context.Cause(ctx))
}

func (d *Dials) ask() (uint64, chan *dialed, error) {
	d.asking.Lock()
	defer d.asking.Unlock()
	conns := make(chan *dialed, 1)
	d.mu.Lock()
	d.last++
	number := d.last
	d.waiting[number] = conns
	d.mu.Unlock()
	if err := d.writer.Write(wire.TypeDial, number, nil, nil); err != nil {
		return 0, nil, err
	}
	return number, conns, nil
}

// Serve takes a stream that the host opened for a Dial; give it to an Acceptor for each stream whose Dial is not 0.
func (d *Dials) Serve(conn *Conn) {
	one := &dialed{Conn: conn, over: make(chan struct{})}
	d.mu.Lock()
	conns := d.waiting[conn.Dial()]
	delete(d.waiting, conn.Dial())
	if conns != nil {
		d.open[one] = true
	}
	d.mu.Unlock()
	if conns == nil {
		_ = conn.Fail(&wire.Error{Kind: wire.KindCancelled, Message: "nobody waits for the gateway"}) // a session that is gone needs no answer
		return
	}
	if conn.Accept() == nil {
		conns <- one
		select {
		case <-one.over:
		case <-d.ended:
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, one)
}

// Close ends the connections, before a freeze: the copies of a guest must not share them.
func (d *Dials) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for conn := range d.open {
		_ = conn.Close() // a session that is gone has ended it
	}
}

// End lets go of the connections that their users have not closed, because the session is over. Call it once.
func (d *Dials) End() { close(d.ended) }

// Join copies between a stream and another connection until both directions have ended, and closes both.
func Join(inner *Conn, outer net.Conn) {
	var copying sync.WaitGroup
	copying.Go(func() {
		if _, err := io.Copy(outer, inner); err != nil && !errors.Is(err, io.EOF) {
			_ = outer.Close() // a request that is cut short must not look whole
			return
		}
		if half, ok := outer.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // it may be gone
			return
		}
		_ = outer.Close()
	})
	_, _ = io.Copy(inner, outer) // how it ended is in what came
	_, _ = inner.Close(), outer.Close()
	copying.Wait()
}
