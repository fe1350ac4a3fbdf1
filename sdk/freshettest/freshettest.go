// Package freshettest tests apps of package freshet.
//
// [Run] runs an app's functions in the test's own process, with no cluster, in milliseconds:
//
//	func TestGreeting(t *testing.T) {
//		c := freshettest.Run(t, app)
//		got, err := client.Of(c, hello).Call(t.Context(), "Ada")
//		…
//	}
//
// What it returns is the client that programs have for a cluster, so that a test calls, maps, spawns, cancels and streams as they do. All
// values are encoded, sent by the protocol between a worker and its guest, and decoded, as in a cluster; hooks run, also those of a
// freeze and its thaw; timeouts, retries, batches and concurrency are the options' own; and a function can call others with
// client.Inside. Each Run has workers of its own: tests may run in parallel.
//
// Not as in a cluster: nothing is isolated, so that a panic in a goroutine of the function's own ends the test, and so does os.Exit;
// there is one worker for each function and combination of parameters; retries follow at once; rates and bounds on queues do not count;
// payloads have at most 64 MiB; there are no tokens; and nothing outlives the test.
//
// [Cluster] deploys an app to a real cluster on this machine for a test, and removes it at the end.
package freshettest

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
)

// Run runs the apps' functions in this process until the test ends, and returns a client for them. An app that could not be deployed
// fails the test, with the deploy's error. What functions log is the test's log.
func Run(t testing.TB, apps ...*freshet.App) *client.Client {
	t.Helper()
	c, stop, err := Start(context.WithoutCancel(t.Context()), t.Log, apps...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return c
}

// Start is Run outside of a test: it runs the apps' functions until the context ends or stop is called, which must be, and waits for them.
// Log gets what they log.
func Start(ctx context.Context, log func(...any), apps ...*freshet.App) (c *client.Client, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	g, err := newGateway(ctx, log, apps)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	listener := newMemory()
	server := &http.Server{Handler: g.routes(), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ends with its listener
	g.dial = listener.dial
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return listener.dial(ctx) }, MaxIdleConnsPerHost: 64}
	stop = sync.OnceFunc(func() {
		cancel()
		g.close()
		transport.CloseIdleConnections()
		_ = server.Close()
		serving.Wait()
	})
	return client.New("http://freshettest", client.HTTPClient(&http.Client{Transport: transport}), client.Patience(0)), stop, nil
}

// memory is a listener within the process.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemory() *memory { return &memory{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (m *memory) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case m.conns <- theirs:
		return ours, nil
	case <-m.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept implements net.Listener.
func (m *memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// Addr implements net.Listener.
func (m *memory) Addr() net.Addr { return &net.UnixAddr{Name: "freshettest", Net: "memory"} }
