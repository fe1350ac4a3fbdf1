// Package client calls the functions of a freshet cluster over HTTP. It is apart from package freshet so that programs which
// only serve calls do not carry an HTTP stack into each sandbox.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Client calls functions through one gateway. It is safe for concurrent use.
type Client struct {
	base      string
	namespace string
	http      *http.Client
	patience  time.Duration
	token     string
}

// DefaultPatience is how long a client keeps trying to reach a gateway that is away before it gives up.
const DefaultPatience = 2 * time.Minute

// Option sets something of a client.
type Option func(*Client)

// Namespace is the environment of the functions. Default "default".
func Namespace(name string) Option { return func(c *Client) { c.namespace = name } }

// Patience is how long to keep trying while the gateway is away or the function's queue is full; 0 tries once.
func Patience(d time.Duration) Option { return func(c *Client) { c.patience = d } }

// HTTPClient replaces the client's own HTTP client, which keeps many connections open to the gateway.
func HTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// Token is sent with each request to gateways that ask who calls.
func Token(token string) Option { return func(c *Client) { c.token = token } }

// New makes a client for the gateway at an address such as "http://127.0.0.1:8600".
func New(address string, options ...Option) *Client {
	c := &Client{
		base: strings.TrimRight(address, "/"), namespace: "default", patience: DefaultPatience,
		http: &http.Client{Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 1024,
			IdleConnTimeout:     90 * time.Second,
		}},
	}
	for _, option := range options {
		option(c)
	}
	return c
}

// Inside makes a client for functions that call others: it reaches the cluster by the worker that runs its caller, with no address, token or
// network. Use it with the context that the function was given. One client serves all functions and calls of a program.
func Inside(options ...Option) *Client {
	transport := &http.Transport{
		DisableKeepAlives: true, // a connection costs little here, and must not outlive a freeze
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return freshet.DialGateway(ctx) },
	}
	return New("http://gateway", append([]Option{HTTPClient(&http.Client{Transport: deployedAs{transport}})}, options...)...)
}

// deployedAs sends the calls of a trial's functions to those of the same trial.
type deployedAs struct{ http.RoundTripper }

func (d deployedAs) RoundTrip(r *http.Request) (*http.Response, error) {
	const functions = "/v1/functions/"
	app, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, functions), "/")
	if as := freshet.DeployedAs(r.Context(), app); as != app && strings.HasPrefix(r.URL.Path, functions) {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = functions+as+"/"+rest, ""
	}
	return d.RoundTripper.RoundTrip(r)
}

// Error is a call that ended without a result: the function's own error or the platform's. errors.As finds it, and errors.Is
// with a *wire.Error of a kind tells the kinds apart.
type Error struct {
	// Fault says what went wrong.
	Fault wire.Error
	// Status is the HTTP status, Call the call's id where it got one.
	Status int
	Call   string
	// Near are names of functions like the one that was not found.
	Near []string
}

func (e *Error) Error() string {
	text := e.Fault.Message
	if e.Fault.Type != "" {
		text = e.Fault.Type + ": " + text
	}
	if len(e.Near) > 0 {
		text += " (did you mean " + strings.Join(e.Near, " or ") + "?)"
	}
	return text
}

// Unwrap makes errors.Is compare kinds.
func (e *Error) Unwrap() error { return &e.Fault }

// Request is a call to make.
type Request struct {
	// Function is APP.FUNCTION.
	Function string
	// Method of a class; empty for a plain function.
	Method string
	// Parameters are the values of a class's parameters: strings, integers, booleans and bytes. See With.
	Parameters map[string]any
	// Body and ContentType are the input. Reader, in place of Body, is an input that is sent as it is read: once, so that
	// a call is not tried again when its gateway is away.
	Body        []byte
	Reader      io.Reader
	ContentType string
	// Key makes the call happen once however often it is sent; New makes one for each call unless given.
	Key string
	// Keep is how long the result of a spawned call is kept, at most 7 days. Default 7 days.
	Keep time.Duration
	// Callback is an address such as https://example.com/done that is told, by a POST, when a spawned call has ended.
	Callback string
	// CancelWithContext has Do cancel the call when its context ends; without it a call that has begun runs to its end.
	CancelWithContext bool

	timed bool // the call's deadline is the context's
}

// longestWait is the longest that gateways let a caller wait.
const longestWait = 7 * 24 * time.Hour

// With is the request to those workers of a class that were made with the values of its parameters, those of the request among them.
func (r Request) With(parameters map[string]any) Request {
	all := maps.Clone(r.Parameters)
	if all == nil {
		all = make(map[string]any, len(parameters))
	}
	maps.Copy(all, parameters)
	r.Parameters = all
	return r
}

// Response is a call's output.
type Response struct {
	Body        []byte
	ContentType string
	// Call is the call's id, Worker the allocation that ran it, Attempt which attempt that was.
	Call    string
	Worker  string
	Attempt int
	// Queued, Started and Run are where the time went: waiting for a free worker, waiting for a worker's start, running.
	Queued, Started, Run time.Duration

	status int
}

// Do makes a call and waits for its output. While the gateway is away it tries again with the same key, so that the call
// still happens once. The call's deadline is the context's.
func (c *Client) Do(ctx context.Context, request Request) (Response, error) {
	if request.CancelWithContext {
		return c.doBound(ctx, request)
	}
	return c.do(ctx, request, "call")
}

// cancelWait is how long the cancelling of a call takes whose caller's context has ended.
const cancelWait = 5 * time.Second

// doBound is Do for a call that ends with its context: it is spawned, so that its id is known while it runs.
func (c *Client) doBound(ctx context.Context, request Request) (Response, error) {
	call, err := c.Spawn(ctx, request)
	if err != nil {
		return Response{}, err
	}
	response, err := c.Result(ctx, call)
	if ctx.Err() == nil || KindOf(err) != "" {
		return response, err
	}
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelWait)
	defer stop()
	return response, errors.Join(err, c.Cancel(last, call))
}

// do makes a call in one of the ways that the gateway offers.
func (c *Client) do(ctx context.Context, request Request, way string) (Response, error) {
	address, err := c.address(request, way)
	if err != nil {
		return Response{}, err
	}
	if request.Key == "" {
		request.Key = rand.Text()
	}
	request.timed = way == "call"
	response, _, err := c.once(ctx, address, request, whole)
	return response, err
}

func (c *Client) address(request Request, way string) (string, error) {
	app, function, ok := strings.Cut(request.Function, ".")
	if !ok {
		return "", fmt.Errorf("call %q: write APP.FUNCTION, such as gosearch.search", request.Function)
	}
	address := c.base + "/v1/functions/" + url.PathEscape(app) + "/" + url.PathEscape(function) + "/" + way
	query := url.Values{}
	if c.namespace != "default" {
		query.Set("namespace", c.namespace)
	}
	if request.Method != "" {
		query.Set("method", request.Method)
	}
	for name, value := range request.Parameters {
		if data, ok := value.([]byte); ok {
			value = base64.StdEncoding.EncodeToString(data)
		}
		query.Set("param."+name, fmt.Sprint(value))
	}
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	return address, nil
}

// again sends a request until it is answered or the patience is over. The duration that once returns says how long to wait before
// another try, or final.
func (c *Client) again(ctx context.Context, once func() (Response, time.Duration, error)) (Response, error) {
	giveUp := time.Now().Add(c.patience)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		response, wait, err := once()
		if err == nil || ctx.Err() != nil || wait < 0 {
			return response, err
		}
		pause = max(pause, wait)
		if time.Now().Add(pause).After(giveUp) {
			return response, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return response, err
		}
	}
}

// final tells again that trying again does not help.
const final = time.Duration(-1)

func (c *Client) newRequest(ctx context.Context, method, address string, request Request) (*http.Request, error) {
	var body io.Reader = bytes.NewReader(request.Body)
	if request.Reader != nil {
		body = io.NopCloser(request.Reader) // which is the caller's to close
	}
	httpRequest, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", request.Function, err)
	}
	if request.Key != "" {
		httpRequest.Header.Set("Idempotency-Key", request.Key)
	}
	if request.ContentType != "" {
		httpRequest.Header.Set("Content-Type", request.ContentType)
	}
	if request.Keep > 0 {
		httpRequest.Header.Set("Freshet-Keep", request.Keep.String())
	}
	if request.Callback != "" {
		httpRequest.Header.Set("Freshet-Callback", request.Callback)
	}
	if until, ok := ctx.Deadline(); ok && request.timed {
		httpRequest.Header.Set("Freshet-Timeout", min(max(time.Until(until), time.Millisecond), longestWait).String())
	}
	if c.token != "" {
		httpRequest.Header.Set("Authorization", "Bearer "+c.token)
	}
	return httpRequest, nil
}

// send sends the request once and reads its answer.
func (c *Client) send(ctx context.Context, method, address string, request Request) (Response, time.Duration, error) {
	response, out, wait, err := c.open(ctx, method, address, request)
	if err != nil {
		return response, wait, err
	}
	response, err = whole(response, out)
	return response, 0, err
}

// waitFor reads how long to wait before trying again: full queues and gateways that cannot reach theirs say so.
func waitFor(response *http.Response) time.Duration {
	after := response.Header.Get("Retry-After")
	if after == "" || response.StatusCode != http.StatusTooManyRequests && response.StatusCode != http.StatusServiceUnavailable {
		return final
	}
	seconds, err := strconv.Atoi(after)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// errorBody is an error as the gateway writes it.
type errorBody struct {
	Kind      wire.Kind `json:"kind"`
	Type      string    `json:"type"`
	Message   string    `json:"message"`
	Traceback string    `json:"traceback"`
	Near      []string  `json:"near"`
}

func (b errorBody) fault() wire.Error {
	return wire.Error{Kind: b.Kind, Type: b.Type, Message: b.Message, Traceback: b.Traceback}
}

func newError(response *http.Response, body []byte) *Error {
	failed := &Error{Status: response.StatusCode, Call: response.Header.Get("Freshet-Call")}
	var parsed struct {
		Error errorBody `json:"error"`
	}
	if err := json.Unmarshal(body, &parsed); err != nil || parsed.Error.Message == "" {
		failed.Fault.Message = "the gateway answered " + response.Status
		return failed
	}
	failed.Fault, failed.Near = parsed.Error.fault(), parsed.Error.Near
	return failed
}

func newResponse(response *http.Response, body []byte) Response {
	h := response.Header
	attempt, _ := strconv.Atoi(h.Get("Freshet-Attempt")) // 0 when a proxy took it away
	r := Response{
		status: response.StatusCode,
		Body:   body, ContentType: h.Get("Content-Type"),
		Call: h.Get("Freshet-Call"), Worker: h.Get("Freshet-Worker"), Attempt: attempt,
	}
	for entry := range strings.SplitSeq(h.Get("Server-Timing"), ",") {
		name, rest, _ := strings.Cut(strings.TrimSpace(entry), ";dur=")
		millis, err := strconv.ParseFloat(rest, 64)
		if err != nil {
			continue
		}
		duration := time.Duration(millis * float64(time.Millisecond))
		switch name {
		case "queue":
			r.Queued = duration
		case "start":
			r.Started = duration
		case "run":
			r.Run = duration
		}
	}
	return r
}

// Call calls a function by its name with a typed input and output; see [Function] for all other ways.
func Call[In, Out any](ctx context.Context, c *Client, function string, in In) (Out, error) {
	return Named[In, Out](c, function).Call(ctx, in)
}
