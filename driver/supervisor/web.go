package supervisor

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/internal/webstream"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// doorHeaders bounds how long a gateway may take to send a request's headers.
	doorHeaders = 10 * time.Second
	// doorLinger is how long a worker that ends refuses requests before it closes the door: gateways hear of its end meanwhile, and none
	// has a connection closed under a request, which the guest might have begun with.
	doorLinger = 250 * time.Millisecond
	// doorGrace bounds how long the gateways may take to read why the guest answers no more.
	doorGrace = time.Second
	// fateWait is how long after a broken connection the guest's end may show, which is then the reason.
	fateWait = time.Second
	// flushWithin is how soon gateways get a part of a body whose length is known; all others get each part at once.
	flushWithin = 10 * time.Millisecond
)

// web lets the gateways' requests through to the guest's server. Each takes a slot, as a call does.
type web struct {
	worker    *Worker
	door      queue.Door
	transport *http.Transport
	pool      webstream.Buffers
	quiet     *log.Logger
	server    *http.Server
	serving   sync.WaitGroup
	closing   sync.Once
}

// openWeb listens on the address by which this node reaches NATS: gateways are on that network too, and guests are kept off it.
func openWeb(ctx context.Context, w *Worker) (*web, error) {
	listener, err := listenBeside(ctx, w.nc)
	if err != nil {
		return nil, fmt.Errorf("open the web door: %w", err)
	}
	d := &web{
		worker: w, door: queue.Door{Address: listener.Addr().String(), Key: rand.Text()},
		transport: webstream.NewTransport(w.guest.streams),
	}
	dial, idle := d.transport.DialContext, w.task.Config.Timeout.Std()
	d.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, errors.Join(errUnopened, err)
		}
		return newIdleConn(conn, idle), nil
	}
	d.quiet = log.New(io.Discard, "", 0) // what goes wrong is told to the gateway
	d.server = &http.Server{Handler: d, ReadHeaderTimeout: doorHeaders, ErrorLog: d.quiet}
	d.serving.Go(func() { _ = d.server.Serve(listener) }) // ends with close
	return d, nil
}

// errUnopened says that the guest got nothing of a request.
var errUnopened = errors.New("no connection to the function's server")

// listenBeside listens where the connection to NATS begins.
func listenBeside(ctx context.Context, nc *nats.Conn) (net.Listener, error) {
	address := nc.LocalAddr()
	for ; address == ""; address = nc.LocalAddr() { // it is lost for the moment
		select {
		case <-time.After(reconnectWait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("find this node's address: %w", err)
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
}

// ServeHTTP takes one request.
func (d *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get(webstream.KeyHeader)), []byte(d.door.Key)) != 1 {
		http.Error(w, "this door is for freshet's gateways", http.StatusForbidden)
		return
	}
	calls := &d.worker.calls
	if !calls.puller.Loans().Take() {
		fault(w, webstream.Refused, "no free slot")
		return
	}
	calls.beats.changed()
	defer calls.beats.changed()
	defer calls.done.Add(1)
	defer calls.puller.Loans().GiveBack()
	r, body := webstream.Accept(w, r)
	proxy := httputil.ReverseProxy{
		Rewrite: rewrite, Transport: d.transport, FlushInterval: flushWithin, ErrorLog: d.quiet, BufferPool: &d.pool,
		ModifyResponse: func(response *http.Response) error {
			response.Header.Del(webstream.FaultHeader) // the guest's are nobody's
			if body.Unended() {
				w.WriteHeader(http.StatusContinue) // once the answer has begun nothing else asks the gateway for the body
			}
			body.Answer(response.Header)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			body.Answer(w.Header())
			d.failed(w, r, err)
		},
	}
	proxy.ServeHTTP(w, r)
}

// rewrite sends the request to the guest as the gateway made it.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "guest"
	r.Out.URL.RawQuery, r.Out.Host = r.In.URL.RawQuery, r.In.Host
	r.Out.Header.Del(webstream.KeyHeader)
	r.Out.Header.Del("Expect") // it was for this door
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values := r.In.Header[name]; values != nil {
			r.Out.Header[name] = values
		}
	}
}

// failed tells the gateway why the guest gave no answer.
func (d *web) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client has gone
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		d.worker.calls.failed.Add(1)
		fault(w, string(wire.KindTimeout), fmt.Sprintf("nothing came from the function's server or went to it for its timeout of %s", d.worker.task.Config.Timeout))
		return
	}
	death := fate(d.worker.guest)
	if death != nil && errors.Is(err, errUnopened) {
		fault(w, webstream.Refused, "the guest ended before the request came to it")
		return
	}
	d.worker.calls.failed.Add(1)
	said := &wire.Error{}
	switch {
	case death != nil:
		fault(w, string(death.Kind), death.Message)
	case errors.As(err, &said):
		fault(w, string(wire.KindCrash), said.Message)
	default:
		fault(w, string(wire.KindCrash), "the function's server broke off before it answered: "+err.Error())
	}
}

// fate is how the guest ended, nil when it goes on.
func fate(g *guest) *wire.Error {
	select {
	case <-g.dead:
		return g.death
	case <-time.After(fateWait):
		return nil
	}
}

func fault(w http.ResponseWriter, kind, message string) {
	w.Header().Set(webstream.FaultHeader, kind)
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, message) // the gateway may have gone
}

// announced is the door as heartbeats tell it; nil before it is open.
func (d *web) announced() *queue.Door {
	if d == nil {
		return nil
	}
	return &d.door
}

// close ends the door and its connections to the guest, so that the guest can end. A request that still runs has no guest any more.
func (d *web) close(ctx context.Context) {
	if d == nil {
		return
	}
	d.closing.Do(func() {
		<-time.After(doorLinger)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), doorGrace)
		defer cancel()
		_ = d.server.Shutdown(ctx)
		_ = d.server.Close() // what did not end in time
		d.serving.Wait()
		d.transport.CloseIdleConnections()
	})
}
