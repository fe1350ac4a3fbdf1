package freshet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// serverSlots is how many requests a worker with a server takes at once where nothing else is said.
const serverSlots = 100

// Server adds a function with a server of its own, which clients reach at the gateway's path /web/APP/NAME/ and by host names. After the
// enter hook run serves the listener's connections until its context ends, which is when the worker has none left, and returns; a run that
// returns earlier ends the worker. For an [http.Handler] use package web. The function takes no calls; [Concurrency] is the number of
// requests that a worker takes at once, 100 by default.
//
// [http.Handler]: https://pkg.go.dev/net/http#Handler
func Server(app *App, name string, run func(context.Context, net.Listener) error, options ...Option) {
	f := &function{server: run}
	f.spec.Web.Enabled, f.spec.Concurrency = true, serverSlots
	f.plain.run = func(context.Context, string, []byte) (string, []byte, error) {
		return "", nil, InputError("function %s takes requests, not calls: send them to /web/%s/%s/", name, app.name, name)
	}
	app.add(name, f, options)
}

// Public lets everybody reach a function's server. Without it a gateway that asks for tokens wants one there as for calls: the header
// Authorization: Bearer TOKEN, or Freshet-Key and Freshet-Secret.
func Public() Option {
	return func(f *function) { f.spec.Web.Public = true }
}

// Domains are host names of the function's own, in lower case, which lead to the gateway. A name that another function has is refused
// by the deploy.
func Domains(names ...string) Option {
	return func(f *function) { f.spec.Web.Domains = names }
}

// Origins are the web origins whose pages may use the function's server, such as "https://example.org", or "*" for all: the gateway then
// answers their preflights. Default none: the server's own answers stand.
func Origins(origins ...string) Option {
	return func(f *function) { f.spec.Web.Origins = origins }
}

// errServed ends a session whose server ended by itself.
var errServed = errors.New("the function's server ended")

// listener gives a server the connections that the host opens.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is a name: connections come through the worker, from no network.
func (l *listener) Addr() net.Addr { return hostAddr{} }

type hostAddr struct{}

func (hostAddr) Network() string { return "freshet" }
func (hostAddr) String() string  { return "worker" }

// accepted is a connection that tells when its server has closed it: what came before the client's end is read first.
type accepted struct {
	*stream.Conn

	once   sync.Once
	closed chan struct{}
}

// Close closes the connection.
func (c *accepted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// server is a function's server while its guest lives.
type server struct {
	listener listener
	stop     context.CancelFunc
	ended    chan struct{} // closed when it returned
	failed   error         // why it ended by itself; set before ended is closed
}

// startServer starts the function's server. One that ends by itself ends the guest.
func startServer(ctx context.Context, g *guest) {
	ctx, stop := context.WithCancel(g.context(ctx, "", 0, 0))
	s := &server{listener: listener{conns: make(chan net.Conn), closed: make(chan struct{})}, stop: stop, ended: make(chan struct{})}
	g.server = s
	go func() { // end waits for it
		err := protect(func() error { return g.function.server(ctx, &s.listener) })
		_ = s.listener.Close() // nobody accepts any more
		if ctx.Err() != nil {
			close(s.ended)
			return
		}
		if err == nil {
			err = errors.New("it returned before its context ended")
		}
		s.failed = fmt.Errorf("%w: %w", errServed, err)
		close(s.ended)
		_ = g.fail(err) // a host that is gone need not be told
		g.ended <- s.failed
	}()
}

// end ends the server, if there is one, and waits for it. The error is why it had ended by itself.
func (s *server) end() error {
	if s == nil {
		return nil
	}
	s.stop()
	<-s.ended
	return s.failed
}

// accept takes a stream: a connection to the gateway that the guest asked for, one to its server, or the body of a call.
func (g *guest) accept(conn *stream.Conn) {
	switch {
	case conn.Dial() != 0:
		g.dials.Serve(conn)
	case conn.Call() != 0:
		g.bodies.Serve(conn)
	case g.server == nil:
		_ = conn.Fail(&wire.Error{Kind: wire.KindUser, Message: "the function has no server: add it with web.Handle"}) // nobody else is to be told
	case conn.Accept() == nil:
		g.server.pass(conn)
	}
}

// pass gives the server a connection, and returns when it has closed it.
func (s *server) pass(conn *stream.Conn) {
	a := &accepted{Conn: conn, closed: make(chan struct{})}
	select {
	case s.listener.conns <- a:
	case <-s.listener.closed:
		return
	}
	select {
	case <-a.closed:
	case <-s.ended:
	}
}
