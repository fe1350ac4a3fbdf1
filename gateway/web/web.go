// Package web is the way from outside to the servers of functions: requests to /web/APP/FUNCTION/ or to a function's host names go
// straight to a warm worker, with streams both ways, and never through the queue.
package web

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/internal/webstream"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	kindNotFound    wire.Kind = "not_found"
	kindUnavailable wire.Kind = "unavailable"
	// retrySoon is what clients are told to wait who may try again.
	retrySoon = time.Second
	// dialWithin bounds the reaching of a worker.
	dialWithin = 3 * time.Second
	// keepIdle is how long a connection to a worker waits for its next request, of which there are at most idleEach.
	keepIdle = 30 * time.Second
	idleEach = 256
	// flushWithin is how soon clients get a part of a body whose length is known; all others get each part at once.
	flushWithin = 10 * time.Millisecond
	// continueWithin is how long a worker may take to ask for a request's body.
	continueWithin = 30 * time.Second
)

// Functions are the deployed functions.
type Functions interface {
	Entry(key queue.Function) (jobs.Entry, bool)
	List() []jobs.Entry
}

// Fault is why a request got no answer of its function.
type Fault struct {
	Kind       wire.Kind
	Message    string
	RetryAfter time.Duration // told to the client when set
}

func (f *Fault) Error() string { return string(f.Kind) + ": " + f.Message }

// Gateway is what a door needs of its gateway.
type Gateway interface {
	// Admit tells why a request may not reach a function that is not public. It takes the credentials that it used out of the request.
	Admit(r *http.Request, function queue.Function) error
	// Refuse answers a request with an error.
	Refuse(w http.ResponseWriter, r *http.Request, err error)
	// Hint tells the autoscaler how many requests wait for a function's workers.
	Hint(function queue.Function, waiting int)
}

// Config is what a door is made of. All of it is needed but Domain.
type Config struct {
	Functions Functions
	Gateway   Gateway
	// Domain is what the host names of functions end in, such as "example.org"; when it is empty there are no host names at all.
	Domain   string
	Registry prometheus.Registerer
	Log      zerolog.Logger
}

// Door takes the requests to web endpoints. New makes it, Close ends it.
type Door struct {
	config Config
	names  names
	base   *http.Transport
	pool   webstream.Buffers
	quiet  *log.Logger

	requests *prometheus.HistogramVec
	inflight *prometheus.GaugeVec

	mu     sync.Mutex
	fleets map[queue.Function]*fleet
}

// New makes a door.
func New(config Config) (*Door, error) {
	labels := []string{"namespace", "app", "function"}
	d := &Door{
		config: config, names: names{functions: config.Functions, domain: strings.ToLower(config.Domain)},
		base: &http.Transport{
			DialContext:        (&net.Dialer{Timeout: dialWithin}).DialContext,
			DisableCompression: true, // the client and the server agree on that
			MaxIdleConns:       0, MaxIdleConnsPerHost: idleEach, IdleConnTimeout: keepIdle, ExpectContinueTimeout: continueWithin,
		},
		quiet: log.New(io.Discard, "", 0), // what goes wrong is told to the client
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "freshet_web_request_seconds", Help: "Requests to web endpoints, by the first digit of their status.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2.5, 19),
		}, append(labels, "status")),
		inflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "freshet_web_inflight", Help: "Requests to web endpoints that wait or run.",
		}, labels),
		fleets: make(map[queue.Function]*fleet),
	}
	for _, collector := range []prometheus.Collector{d.requests, d.inflight} {
		if err := config.Registry.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics of web endpoints: %w", err)
		}
	}
	return d, nil
}

// Serves tells whether a host name leads to a function, or is the domain of their names.
func (d *Door) Serves(host string) bool {
	_, known := d.names.find(host)
	return known || host != "" && host == d.names.domain
}

// Close ends the connections that nobody uses. Stop the HTTP server first.
func (d *Door) Close() { d.base.CloseIdleConnections() }

func (d *Door) fleet(function queue.Function) *fleet {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.fleets[function]
	if f == nil {
		f = &fleet{members: make(map[string]*member), hint: func(waiting int) { d.config.Gateway.Hint(function, waiting) }}
		d.fleets[function] = f
	}
	return f
}

// Hear takes a worker's heartbeat.
func (d *Door) Hear(beat queue.Heartbeat, now time.Time) {
	if entry, known := d.config.Functions.Entry(beat.Key()); beat.Door == nil && (!known || !entry.Spec.ServesWeb()) {
		return // most functions have no server of their own
	}
	d.fleet(beat.Key()).hear(beat, now)
}

// Bury forgets the workers that were not heard since a time, and the functions that are gone.
func (d *Door) Bury(before time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for function, f := range d.fleets {
		f.bury(before)
		if _, known := d.config.Functions.Entry(function); !known && f.idle() {
			delete(d.fleets, function)
		}
	}
}

func (f *fleet) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.members)+len(f.waiting) == 0
}

// Wrap answers the requests to web endpoints, and leaves all others to next.
func (d *Door) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, ok := d.names.place(r)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		d.serve(w, r, at)
	})
}

func (d *Door) serve(w http.ResponseWriter, r *http.Request, at place) {
	entry, known := d.config.Functions.Entry(at.function)
	switch {
	case !known || entry.Err != nil:
		d.config.Gateway.Refuse(w, r, &Fault{Kind: kindNotFound, Message: "no function " + at.function.String() + " with a web endpoint"})
		return
	case !entry.Spec.ServesWeb():
		d.config.Gateway.Refuse(w, r, &Fault{Kind: kindNotFound, Message: "function " + at.function.String() + " has no web endpoint: set web { enabled = true } where its program has a server"})
		return
	}
	if crossOrigin(w, r, entry.Spec.Web.Origins) {
		return
	}
	if !entry.Spec.Web.Public {
		if err := d.config.Gateway.Admit(r, at.function); err != nil {
			d.config.Gateway.Refuse(w, r, err)
			return
		}
	}
	if at.base != "" && r.URL.EscapedPath() == at.base { // relative links need the slash
		target := at.base + "/"
		if r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
		http.Redirect(w, r, target, http.StatusPermanentRedirect) //nolint:gosec // it begins with /web/: the host stays
		return
	}
	d.pass(w, r, at, entry.Spec)
}

// pass sends the request to a worker, counts it and notes it.
func (d *Door) pass(w http.ResponseWriter, r *http.Request, at place, function spec.Function) {
	began, call := time.Now(), ulid.MustNew(ulid.Now(), rand.Reader).String()
	inflight := d.inflight.WithLabelValues(at.function.Namespace, at.function.App, at.function.Name)
	inflight.Inc()
	defer inflight.Dec()
	noted := &noting{ResponseWriter: w}
	r, body := webstream.Accept(w, r)
	w.Header().Set("Freshet-Call", call)
	proxy := httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { rewrite(p, at, call) },
		Transport: transport{d.base, d.fleet(at.function), function, body},
		ModifyResponse: func(response *http.Response) error {
			own(response, function.Web.Origins)
			body.Answer(response.Header)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			body.Answer(w.Header())
			d.failed(w, r, err)
		},
		FlushInterval: flushWithin, BufferPool: &d.pool, ErrorLog: d.quiet,
	}
	defer func() {
		took := time.Since(began)
		d.requests.WithLabelValues(at.function.Namespace, at.function.App, at.function.Name, noted.class()).Observe(took.Seconds())
		d.config.Log.Debug().Str("call", call).Str("function", at.function.String()).Str("method", r.Method).Str("path", r.URL.Path).
			Str("from", r.RemoteAddr).Int("status", noted.status).Dur("took", took).Msg("web request")
	}()
	proxy.ServeHTTP(noted, r)
}

// own drops what the gateway says in the guest's place.
func own(response *http.Response, origins []string) {
	response.Header.Del("Freshet-Call")
	response.Header.Del("Freshet-Error")
	if len(origins) > 0 {
		for name := range response.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				delete(response.Header, name)
			}
		}
	}
}

// failed answers a request that got no answer of a guest.
func (d *Door) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client has gone
	}
	fault := &Fault{}
	if !errors.As(err, &fault) {
		fault = &Fault{Kind: wire.KindLost, Message: "the worker was lost before it answered; try again", RetryAfter: retrySoon}
		d.config.Log.Debug().Err(err).Msg("web request")
	}
	d.config.Gateway.Refuse(w, r, fault)
}

// rewrite makes the request that the guest's server sees.
func rewrite(p *httputil.ProxyRequest, at place, call string) {
	p.Out.URL.RawQuery, p.Out.Host = p.In.URL.RawQuery, p.In.Host
	if at.base != "" {
		p.Out.URL.RawPath = "/" + strings.TrimPrefix(strings.TrimPrefix(p.In.URL.EscapedPath(), at.base), "/")
		p.Out.URL.Path = "/" + strings.TrimPrefix(strings.TrimPrefix(p.In.URL.Path, at.base), "/")
		p.Out.Header.Set("X-Forwarded-Prefix", at.base)
	}
	for _, name := range []string{"Freshet-Key", "Freshet-Secret", "Modal-Key", "Modal-Secret", "Freshet-Namespace", webstream.KeyHeader} {
		p.Out.Header.Del(name)
	}
	p.SetXForwarded()
	proto := p.Out.Header.Get("X-Forwarded-Proto")
	if client, _, err := net.SplitHostPort(p.In.RemoteAddr); err == nil {
		if strings.Contains(client, ":") {
			client = `"[` + client + `]"`
		}
		p.Out.Header.Set("Forwarded", fmt.Sprintf("for=%s;host=%q;proto=%s", client, p.In.Host, proto))
	}
	p.Out.Header.Set("Freshet-Call", call)
	if p.In.Header.Get("X-Request-Id") == "" {
		p.Out.Header.Set("X-Request-Id", call)
	}
}

// crossOrigin lets pages of the function's origins use it; true says that the request was a preflight, and is answered.
func crossOrigin(w http.ResponseWriter, r *http.Request, origins []string) bool {
	if len(origins) == 0 {
		return false
	}
	h, origin := w.Header(), r.Header.Get("Origin")
	h.Add("Vary", "Origin")
	if origin == "" || !slices.Contains(origins, origin) && !slices.Contains(origins, "*") {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "*")
	method := r.Header.Get("Access-Control-Request-Method")
	if r.Method != http.MethodOptions || method == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", method)
	if wanted := r.Header.Get("Access-Control-Request-Headers"); wanted != "" {
		h.Set("Access-Control-Allow-Headers", wanted)
	}
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// noting remembers the status of a response.
type noting struct {
	http.ResponseWriter

	status int
}

// Unwrap lets http.ResponseController flush and hijack.
func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }

func (n *noting) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

func (n *noting) class() string {
	if n.status == 0 {
		return "none" // the client went before there was one
	}
	return string(rune('0'+n.status/100)) + "xx"
}
