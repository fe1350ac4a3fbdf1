package stream

import (
	"fmt"
	"sync"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// types are the message types of one side.
type types struct{ data, end, credit, close wire.Type }

func hostTypes() types {
	return types{wire.TypeData, wire.TypeEnd, wire.TypeCredit, wire.TypeClose}
}

func guestTypes() types {
	return types{wire.TypeGuestData, wire.TypeGuestEnd, wire.TypeGuestCredit, wire.TypeGuestClose}
}

// mux is the streams of one side of a session.
type mux struct {
	writer *wire.Writer
	// types are what this side sends, theirs what it reads.
	types, theirs types

	mu     sync.Mutex
	last   uint64 // the highest number that was opened
	conns  map[uint64]*Conn
	closed error // why no more are opened
}

func newMux(writer *wire.Writer, own, theirs types) mux {
	return mux{writer: writer, types: own, theirs: theirs, conns: make(map[uint64]*Conn)}
}

func (m *mux) send(typ wire.Type, number uint64, meta any, payload []byte) error {
	if err := m.writer.Write(typ, number, meta, payload); err != nil {
		return fmt.Errorf("send on stream %d: %w", number, err)
	}
	return nil
}

// next registers a stream of the next number.
func (m *mux) next() (*Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed != nil {
		return nil, m.closed
	}
	m.last++
	conn := newConn(m, m.last)
	m.conns[conn.number] = conn
	return conn, nil
}

func (m *mux) forget(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, number)
}

// find is the stream that a message is for; nil when it is over.
func (m *mux) find(msg wire.Message) (*Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if msg.Call == 0 || msg.Call > m.last {
		return nil, fmt.Errorf("%w: message 0x%02x for stream %d, which was never opened", wire.ErrType, uint8(msg.Type), msg.Call)
	}
	return m.conns[msg.Call], nil
}

// handle takes a message of the peer for a stream. It never waits, so that whoever reads the session can call it.
func (m *mux) handle(msg wire.Message) error {
	conn, err := m.find(msg)
	if err != nil || conn == nil {
		return err
	}
	switch msg.Type {
	case m.theirs.data:
		return conn.gotData(msg.Payload)
	case m.theirs.end:
		return conn.gotEnd()
	case m.theirs.credit:
		return conn.gotCredit(msg)
	case m.theirs.close:
		return conn.gotClose(msg)
	}
	return fmt.Errorf("%w: message 0x%02x, which this side of a stream does not take", wire.ErrType, uint8(msg.Type))
}

// shut ends all streams and lets no more be opened.
func (m *mux) shut(cause error) {
	m.mu.Lock()
	if m.closed == nil {
		m.closed = cause
	}
	conns := m.allLocked()
	m.mu.Unlock()
	for _, conn := range conns {
		conn.mu.Lock()
		conn.endLocked(cause)
		conn.mu.Unlock()
	}
}

func (m *mux) allLocked() []*Conn {
	conns := make([]*Conn, 0, len(m.conns))
	for _, conn := range m.conns {
		conns = append(conns, conn)
	}
	return conns
}

func (c *Conn) gotData(payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
		return nil
	case c.peerEnded || len(payload) == 0:
		return fmt.Errorf("%w: data on stream %d that is empty or after its end", wire.ErrType, c.number)
	case c.received.Len()+c.taken+len(payload) > wire.StreamWindow:
		return fmt.Errorf("%w: more than %d bytes on stream %d that were not granted", wire.ErrTooLarge, wire.StreamWindow, c.number)
	}
	c.received.Write(payload)
	c.changed.Broadcast()
	return nil
}

func (c *Conn) gotEnd() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	if c.peerEnded {
		return fmt.Errorf("%w: stream %d ended twice", wire.ErrType, c.number)
	}
	c.peerEnded = true
	c.changed.Broadcast()
	c.endedLocked()
	return nil
}

func (c *Conn) gotCredit(msg wire.Message) error {
	var meta wire.Credit
	if err := msg.DecodeMeta(&meta); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	if meta.Bytes < 1 || meta.Bytes > wire.StreamWindow-c.credit {
		return fmt.Errorf("%w: %d bytes granted on stream %d, which has %d of %d", wire.ErrTooLarge, meta.Bytes, c.number, c.credit, wire.StreamWindow)
	}
	c.credit += meta.Bytes
	c.changed.Broadcast()
	return nil
}

func (c *Conn) gotClose(msg wire.Message) error {
	var failed error
	if len(msg.Meta) > 0 {
		reason := &wire.Error{}
		if err := msg.DecodeMeta(reason); err != nil {
			return err
		}
		failed = reason
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(failed)
	return nil
}
