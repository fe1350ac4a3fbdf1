// Package stream carries connections over the frames of package wire: a host opens them to the server in a guest, and both sides
// use them as a net.Conn. Each side holds at most wire.StreamWindow bytes of a stream that nobody reads.
package stream

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// maxChunk is the most bytes that one frame of a stream carries, so that streams and calls take turns.
const maxChunk = 64 << 10

// Conn is one stream. Like a TCP connection it may be closed for writing alone. It is safe for concurrent use.
type Conn struct {
	mux    *mux
	number uint64
	call   uint64
	dial   uint64

	// writing is held while a write is on its way, so that the bytes of each stay together and an end comes after them.
	writing sync.Mutex

	mu      sync.Mutex
	changed sync.Cond // signalled when anything below changed
	// received is what was not read yet, taken what was read and is not yet granted again.
	received bytes.Buffer
	taken    int
	// credit is how many bytes the peer will still take.
	credit int
	// ended and peerEnded say that no more is written by this side and by the peer; told, that the peer knows.
	ended, told, peerEnded bool
	// closed is this side's Close, over the end of everything; failed is why, when it was not as it should.
	closed, over  bool
	failed        error
	opened        bool
	done          chan struct{} // closed when over
	read, written deadline
}

func newConn(m *mux, number uint64) *Conn {
	c := &Conn{mux: m, number: number, credit: wire.StreamWindow, done: make(chan struct{})}
	c.changed.L = &c.mu
	return c
}

// Read reads what the peer sent. After the peer's end, or its close without an error, it returns io.EOF.
func (c *Conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	for {
		if c.closed {
			c.mu.Unlock()
			return 0, c.opError("read", net.ErrClosed)
		}
		if c.read.passed() {
			c.mu.Unlock()
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		}
		if c.received.Len() > 0 || len(b) == 0 {
			break
		}
		if c.failed != nil {
			defer c.mu.Unlock()
			return 0, c.failed
		}
		if c.peerEnded || c.over {
			c.mu.Unlock()
			return 0, io.EOF
		}
		c.changed.Wait()
	}
	n, _ := c.received.Read(b) // it holds enough, or b is empty
	grant := c.grantLocked(n)
	c.mu.Unlock()
	if grant == 0 {
		return n, nil
	}
	if err := c.mux.send(c.mux.types.credit, c.number, wire.Credit{Bytes: grant}, nil); err != nil {
		return n, nil // the next read tells that the whole session is gone
	}
	return n, nil
}

// grantLocked counts bytes that were read, and tells how many to grant the peer now: not each few of them, to save frames.
func (c *Conn) grantLocked(n int) int {
	c.taken += n
	if c.taken < wire.StreamWindow/2 || c.peerEnded || c.over {
		return 0
	}
	grant := c.taken
	c.taken = 0
	return grant
}

// Write sends b, waiting for the peer to take it.
func (c *Conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	sent := 0
	for {
		n, err := c.reserve(len(b) - sent)
		if err != nil {
			return sent, err
		}
		if n > 0 {
			if err := c.mux.send(c.mux.types.data, c.number, nil, b[sent:sent+n]); err != nil {
				return sent, err
			}
		}
		if sent += n; sent == len(b) {
			return sent, nil // what the peer does from now on is not this write's
		}
	}
}

// reserve waits until the peer takes some of so many bytes.
func (c *Conn) reserve(want int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.failed != nil:
			return 0, c.failed
		case c.ended || c.over:
			return 0, c.opError("write", net.ErrClosed)
		case c.written.passed():
			return 0, c.opError("write", os.ErrDeadlineExceeded)
		case want == 0:
			return 0, nil
		case c.credit > 0:
			n := min(want, c.credit, maxChunk)
			c.credit -= n
			return n, nil
		}
		c.changed.Wait()
	}
}

// CloseWrite tells the peer that nothing more comes. What it sends can still be read.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	if c.ended || c.over {
		c.mu.Unlock()
		return nil
	}
	c.ended = true // a write that waits gives up
	c.changed.Broadcast()
	c.mu.Unlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.mux.send(c.mux.types.end, c.number, nil, nil); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = true
	c.endedLocked()
	return nil
}

// endedLocked ends a stream that has ended in both directions.
func (c *Conn) endedLocked() {
	if c.told && c.peerEnded {
		c.endLocked(nil)
	}
}

// Close ends the stream in both directions. The peer still gets what was written before.
func (c *Conn) Close() error { return c.closeWith(nil) }

// closeWith closes, and tells the peer why.
func (c *Conn) closeWith(reason *wire.Error) error {
	c.mu.Lock()
	c.closed, c.ended = true, true // reads and writes that wait give up
	c.changed.Broadcast()
	c.mu.Unlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	over := c.over
	c.endLocked(nil)
	c.mu.Unlock()
	if over {
		return nil
	}
	if reason == nil {
		return c.mux.send(c.mux.types.close, c.number, nil, nil)
	}
	return c.mux.send(c.mux.types.close, c.number, reason, nil)
}

// Done is closed when the stream is over: nothing more comes or can be sent. What came before can still be read.
func (c *Conn) Done() <-chan struct{} { return c.done }

// endLocked ends the stream; the first one counts.
func (c *Conn) endLocked(failed error) {
	if c.over {
		return
	}
	c.over, c.failed = true, failed
	c.changed.Broadcast()
	close(c.done)
	c.mux.forget(c.number)
}

// Call is the number of the call that a stream belongs to; 0 for one to the guest's server.
func (c *Conn) Call() uint64 { return c.call }

// Dial is the guest's number of a connection to the gateway; 0 for other streams.
func (c *Conn) Dial() uint64 { return c.dial }

// LocalAddr is the stream's own name: it has no address.
func (c *Conn) LocalAddr() net.Addr { return addr(c.number) }

// RemoteAddr as LocalAddr.
func (c *Conn) RemoteAddr() net.Addr { return addr(c.number) }

type addr uint64

func (addr) Network() string  { return "freshet" }
func (a addr) String() string { return fmt.Sprintf("stream %d", uint64(a)) }

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "freshet", Addr: addr(c.number), Err: err}
}

// SetDeadline sets both deadlines. They bound the wait for the peer, not for the session's own pipes.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.read, &c.written)
}

// SetReadDeadline bounds reads, those that wait too.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.read) }

// SetWriteDeadline bounds writes, those that wait too.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.written) }

func (c *Conn) setDeadlines(t time.Time, deadlines ...*deadline) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.closed {
		return c.opError("set deadline", net.ErrClosed)
	}
	for _, d := range deadlines {
		d.set(t, c.changed.Broadcast)
	}
	c.changed.Broadcast()
	return nil
}

// deadline is a point in time that wakes those who wait.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(at time.Time, wake func()) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, wake)
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }
