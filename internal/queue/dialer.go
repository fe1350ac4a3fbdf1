package queue

import (
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// busyWithin is how soon one write to NATS follows another where many calls run. Then those who are ready to run may have messages
	// too, and are let run first; a lone call's messages leave at once.
	busyWithin = 250 * time.Microsecond
	// maxUnsent is how much may wait for a slow server before publishers wait too, in bytes.
	maxUnsent = 1 << 20
	// sendWithin bounds how long the server may take nothing. dialWithin is how long a connection may take to be made.
	sendWithin = time.Minute
	dialWithin = 2 * time.Second
)

// Dialer connects to NATS for who has many calls under way: messages that are published in the same moment leave in one system call.
// nats.go alone writes when its flusher runs, which with few processors is after each message. It is a nats.CustomDialer.
type Dialer struct{}

// Dial connects.
func (Dialer) Dial(network, address string) (net.Conn, error) {
	raw, err := net.DialTimeout(network, address, dialWithin)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, kick: make(chan struct{}, 1)}
	c.room.L = &c.mu
	c.sender.Go(c.send)
	return c, nil
}

// conn is a connection that gathers what is written to it.
type conn struct {
	net.Conn

	kick   chan struct{} // the sender is to send
	sender sync.WaitGroup

	mu      sync.Mutex
	room    sync.Cond // signalled when the buffer shrank
	buf     []byte    // what waits to be sent
	spare   []byte
	sending bool // one at a time sends for all
	closed  bool
	sent    time.Time
	err     error
}

// Write takes what it is given. A nil error means that it is sent or will be; once sending failed, every later call returns that failure.
func (c *conn) Write(data []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.buf) > maxUnsent && c.err == nil {
		c.room.Wait()
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closed:
		return 0, net.ErrClosed
	}
	c.buf = append(c.buf, data...)
	switch {
	case c.sending:
	case time.Since(c.sent) > busyWithin:
		c.flush()
		return len(data), c.err
	default:
		c.sending = true
		c.kick <- struct{}{}
	}
	return len(data), nil
}

// send sends for others, once those have run that are ready to: nats.go holds its lock while it writes, so they could not add
// anything meanwhile.
func (c *conn) send() {
	for range c.kick {
		runtime.Gosched()
		c.mu.Lock()
		c.flush()
		c.mu.Unlock()
	}
}

// flush sends until nothing waits, releasing the lock while it does.
func (c *conn) flush() {
	c.sending = true
	for len(c.buf) > 0 && c.err == nil {
		out, within := c.buf, sendWithin
		if c.closed {
			within = closeWithin
		}
		c.buf = c.spare[:0]
		_ = c.Conn.SetWriteDeadline(time.Now().Add(within)) // fails only when closed, as the write then does
		c.mu.Unlock()
		_, err := c.Conn.Write(out)
		if err != nil {
			_ = c.Conn.Close() // half a message may have left: nats.go is to connect anew
		}
		c.mu.Lock()
		c.spare, c.err = out, err
		if cap(out) > maxUnsent { // grown by one large payload
			c.spare = nil
		}
		c.room.Broadcast()
	}
	c.sent, c.sending = time.Now(), false
}

// SetWriteDeadline does nothing: what is written leaves later, within a time of its own.
func (*conn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is for reading alone, as SetWriteDeadline says.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// closeWithin is how long the last messages may take to leave.
const closeWithin = 100 * time.Millisecond

// Close sends what waits, if it can, and closes the connection.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	_ = c.Conn.SetWriteDeadline(time.Now().Add(closeWithin)) // as above
	close(c.kick)
	c.mu.Unlock()
	c.sender.Wait()
	return c.Conn.Close()
}
