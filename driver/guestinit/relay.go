package guestinit

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// lingering is how long a server may take to read what was sent to it before its client closed.
const lingering = 5 * time.Second

// stream connects one stream with the server.
func (h *httpHandler) stream(ctx context.Context, conn *stream.Conn) {
	if err := h.calls.enter(); err != nil {
		_ = conn.Fail(asError(err)) // a session that is gone needs no answer
		return
	}
	defer h.calls.leave()
	server, err := h.dial(ctx)
	if err != nil {
		_ = conn.Fail(&wire.Error{Kind: wire.KindUser, Type: "connection", Message: "the server does not accept connections: " + err.Error()})
		return
	}
	defer func() { _ = server.Close() }()
	if conn.Accept() != nil {
		return
	}
	var copying, watching sync.WaitGroup
	finished := make(chan struct{})
	copying.Go(func() { upload(server, conn) })
	copying.Go(func() { download(conn, server) })
	watching.Go(func() {
		select {
		case <-conn.Done(): // a host that closed wants nothing more, but what it sent counts
			_ = server.SetReadDeadline(time.Now())
			_ = server.SetWriteDeadline(time.Now().Add(lingering))
		case <-finished:
		}
	})
	copying.Wait()
	close(finished)
	watching.Wait()
}

// upload sends the server what the host sends.
func upload(server net.Conn, conn *stream.Conn) {
	_, err := io.Copy(server, conn)
	if err == nil {
		if half, ok := server.(*net.TCPConn); ok {
			err = half.CloseWrite()
		}
	}
	if err != nil { // one of the two is gone: so must the other be
		_, _ = server.Close(), conn.Close()
	}
}

// download sends the host what the server sends.
func download(conn *stream.Conn, server net.Conn) {
	_, err := io.Copy(conn, server)
	if err == nil {
		err = conn.CloseWrite()
	}
	if err != nil {
		_ = conn.Fail(&wire.Error{Kind: wire.KindUser, Type: "connection", Message: "the connection to the server broke: " + err.Error()})
	}
}
