package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"sync"

	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/webstream"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// maxOutward bounds the connections that a guest has to the gateway.
const maxOutward = 1024

// outward lets a guest call functions of its own namespace, by connections to the gateway that it asks for. It has no token: the
// supervisor shows the gateway its node's, for nothing but calls.
type outward struct {
	gateway   *url.URL
	token     string
	namespace string
	conns     chan net.Conn
	room      chan struct{}
	transport *http.Transport
	pool      webstream.Buffers
	quiet     *log.Logger
	server    *http.Server
	serving   sync.WaitGroup
	closed    context.Context //nolint:containedctx // the guest's life
}

// openOutward serves a guest's connections until its life ends; nil where the node has no gateway for it.
func openOutward(life context.Context, task handoff.Task) (*outward, error) {
	if task.Gateway == nil {
		return nil, nil //nolint:nilnil // who has none has nothing to close
	}
	gateway, err := url.Parse(task.Gateway.URL)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's address: %w", err)
	}
	o := &outward{
		gateway: gateway, token: task.Gateway.Token, namespace: task.Identity.Namespace, closed: life,
		conns: make(chan net.Conn), room: make(chan struct{}, maxOutward), transport: &http.Transport{MaxIdleConnsPerHost: 64},
		quiet: log.New(io.Discard, "", 0), // what goes wrong is told to the guest
	}
	if o.namespace == "" {
		o.namespace = spec.DefaultNamespace
	}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: doorHeaders, ErrorLog: o.quiet}
	o.serving.Go(func() { _ = o.server.Serve(o) }) // ends with close
	return o, nil
}

// close ends all connections.
func (o *outward) close() {
	if o == nil {
		return
	}
	_ = o.server.Close() // it has no listener that could fail
	o.serving.Wait()
	o.transport.CloseIdleConnections()
}

// dial opens the connection that the guest has asked for.
func (o *outward) dial(g *guest, number uint64) {
	select {
	case o.room <- struct{}{}:
	default:
		return // it has more than any program needs, and waits in vain
	}
	g.reading.Go(func() {
		defer func() { <-o.room }()
		conn, err := g.streams.OpenDial(g.life, number)
		if err != nil {
			return // it does not want it any more
		}
		select {
		case o.conns <- conn:
			<-conn.Done()
		case <-o.closed.Done():
			_ = conn.Close() // the guest is gone with it
		}
	})
}

// Accept implements net.Listener.
func (o *outward) Accept() (net.Conn, error) {
	select {
	case conn := <-o.conns:
		return conn, nil
	case <-o.closed.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; the guest's end closes it.
func (o *outward) Close() error { return nil }

// Addr implements net.Listener.
func (o *outward) Addr() net.Addr { return &net.UnixAddr{Name: "guest", Net: "freshet"} }

// mayCall is what a guest may ask of a gateway: to call functions, and what became of calls. It is immutable.
var mayCall = regexp.MustCompile(`^/v1/(functions/[A-Za-z0-9_-]+/[A-Za-z0-9_~-]+/(call|spawn|map|batch|stream)|(calls|batches)/[A-Za-z0-9]+(/[a-z0-9/]+)?)$`)

// ServeHTTP takes one request of the guest.
func (o *outward) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch {
	case !mayCall.MatchString(r.URL.EscapedPath()) || r.Method != http.MethodPost && r.Method != http.MethodGet:
		o.refuse(w, "functions may call functions and ask for the results of calls, nothing else: "+r.Method+" "+r.URL.Path)
		return
	case query.Has("namespace") && query.Get("namespace") != o.namespace:
		o.refuse(w, "functions may call those of their own namespace, which is "+o.namespace)
		return
	}
	if o.namespace != spec.DefaultNamespace {
		query.Set("namespace", o.namespace)
		r.URL.RawQuery = query.Encode()
	}
	r, body := webstream.Accept(w, r)
	proxy := httputil.ReverseProxy{
		Rewrite: o.rewrite, Transport: o.transport, FlushInterval: -1, ErrorLog: o.quiet, BufferPool: &o.pool,
		ModifyResponse: func(response *http.Response) error {
			body.Answer(response.Header)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			body.Answer(w.Header())
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	proxy.ServeHTTP(w, r)
}

func (o *outward) refuse(w http.ResponseWriter, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"kind": "forbidden", "message": message}}) // the guest may have gone
}

// rewrite sends the request to the gateway as the node's own.
func (o *outward) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(o.gateway)
	r.Out.Host = o.gateway.Host
	r.Out.Header.Del("Authorization")
	if o.token != "" {
		r.Out.Header.Set("Authorization", "Bearer "+o.token)
	}
}
