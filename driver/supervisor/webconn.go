package supervisor

import (
	"net"
	"sync/atomic"
	"time"
)

// idleConn ends a connection over which nothing came or went for the limit.
type idleConn struct {
	net.Conn

	limit time.Duration
	set   atomic.Int64 // when the deadline was set last, in Unix nanoseconds
}

func newIdleConn(conn net.Conn, limit time.Duration) *idleConn {
	c := &idleConn{Conn: conn, limit: limit}
	c.touch()
	return c
}

// touch moves the deadline, though not for each few bytes.
func (c *idleConn) touch() {
	now := time.Now()
	last := c.set.Load()
	if now.UnixNano()-last < int64(c.limit/20) || !c.set.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	_ = c.SetDeadline(now.Add(c.limit)) // fails on a closed connection, which ends anyway
}

func (c *idleConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.touch()
	}
	return n, err
}

func (c *idleConn) Write(b []byte) (int, error) {
	c.touch()
	n, err := c.Conn.Write(b)
	c.touch()
	return n, err
}
