package guestinit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// Headers that tell a server which call it answers.
const (
	headerCall     = "Freshet-Call"
	headerAttempt  = "Freshet-Attempt"
	headerDeadline = "Freshet-Deadline"
)

func (h *httpHandler) url(target string) string {
	return "http://" + net.JoinHostPort("localhost", strconv.Itoa(h.settings.HTTP.Port)) + target
}

// call sends a call to the server as a request, and makes its response the result.
func (h *httpHandler) call(ctx context.Context, c call) (wire.Result, []byte, error) {
	request, err := h.request(ctx, c)
	if err != nil {
		return wire.Result{}, nil, err
	}
	var result wire.Result
	var body []byte
	err = h.roundTrip(request, func(response *http.Response) error {
		result, body, err = h.read(ctx, c, response)
		return err
	})
	var known *wire.Error
	switch {
	case ctx.Err() != nil:
		return wire.Result{}, nil, context.Cause(ctx)
	case errors.As(err, &known):
		return wire.Result{}, nil, known
	case err != nil:
		return wire.Result{}, nil, h.broken(ctx, err)
	}
	if c.meta.HTTP == nil && result.HTTP.Status >= 300 {
		return wire.Result{}, nil, statusError(result.HTTP.Status, body)
	}
	return result, body, nil
}

// request makes a call's request: the one that it describes, or a POST of its input to the path that its method names.
func (h *httpHandler) request(ctx context.Context, c call) (*http.Request, error) {
	head := c.meta.HTTP
	if head == nil {
		head = &wire.Request{Method: http.MethodPost, Target: "/" + url.PathEscape(c.meta.Method)}
	}
	if !strings.HasPrefix(head.Target, "/") {
		return nil, inputError("http.target: %q: begin it with /", head.Target)
	}
	input, err := h.reader(ctx, c)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, head.Method, h.url(head.Target), input)
	if err != nil {
		return nil, inputError("the call's HTTP request: %v", err)
	}
	if c.meta.Large > 0 {
		request.ContentLength = c.meta.Large
	}
	for name, values := range head.Header {
		request.Header[textproto.CanonicalMIMEHeaderKey(name)] = values
	}
	dropHops(request.Header)
	if head.Host != "" {
		request.Host = head.Host
	}
	if c.meta.ContentType != "" && request.Header.Get("Content-Type") == "" {
		request.Header.Set("Content-Type", c.meta.ContentType)
	}
	if c.meta.Traceparent != "" {
		request.Header.Set("Traceparent", c.meta.Traceparent)
	}
	request.Header.Set(headerCall, c.meta.ID)
	request.Header.Set(headerAttempt, strconv.Itoa(c.meta.Attempt))
	request.Header.Set(headerDeadline, deadlineText(c.meta))
	if request.Header["User-Agent"] == nil {
		request.Header["User-Agent"] = nil // none of our own
	}
	return request, nil
}

// dropHops removes what concerns one connection alone.
func dropHops(header http.Header) {
	for _, names := range header["Connection"] {
		for name := range strings.SplitSeq(names, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		delete(header, name)
	}
}

// read takes a whole response.
func (h *httpHandler) read(ctx context.Context, c call, response *http.Response) (wire.Result, []byte, error) {
	limit := h.greeting().MaxPayload
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return wire.Result{}, nil, fmt.Errorf("read the server's response: %w", err)
	}
	passed := false
	if int64(len(body)) > limit && (c.meta.HTTP != nil || response.StatusCode < http.StatusMultipleChoices) {
		if passed, err = h.passOn(ctx, c, body, response.Body); err != nil {
			return wire.Result{}, nil, fmt.Errorf("pass on the server's response: %w", err)
		}
	}
	if int64(len(body)) > limit && !passed {
		return wire.Result{}, nil, &wire.Error{
			Kind: wire.KindUser, Type: "output",
			Message: fmt.Sprintf("the server's response is longer than %d bytes, which is the limit of a result: stream it", limit),
		}
	}
	dropHops(response.Header)
	return wire.Result{
		ContentType: response.Header.Get("Content-Type"),
		HTTP:        &wire.Response{Status: response.StatusCode, Header: response.Header},
	}, body, nil
}

// statusError makes a call's error of a status. What is wrong with the request stays wrong; what may pass may be tried again.
func statusError(status int, body []byte) error {
	failure := &wire.Error{Kind: wire.KindUser, Type: fmt.Sprintf("HTTP %d", status)}
	if status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooEarly && status != http.StatusTooManyRequests {
		failure.Kind = wire.KindInput
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), tailBytes)]), "\uFFFD"))
	failure.Message = fmt.Sprintf("the server answered %d %s", status, http.StatusText(status))
	if text != "" {
		failure.Message += ": " + text
	}
	return failure
}

// broken tells a server that does not answer from one that has ended, whose end is then the call's too.
func (h *httpHandler) broken(ctx context.Context, err error) error {
	timer := time.NewTimer(diedWait)
	defer timer.Stop()
	select {
	case <-h.exited:
		<-ctx.Done() // guard ends the guest
		return context.Cause(ctx)
	case <-timer.C:
	case <-ctx.Done():
	}
	return &wire.Error{Kind: wire.KindUser, Type: "connection", Message: "the server did not answer: " + err.Error()}
}

// roundTrip sends a request over a connection of its own, so that none is open when the guest is frozen, and gives its response
// to use. The request is not sent to its end when the response does not wait for it.
func (h *httpHandler) roundTrip(request *http.Request, use func(*http.Response) error) error {
	conn, err := h.dial(request.Context())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(request.Context(), func() { _ = conn.Close() })
	defer stop()
	request.Close = true
	var sending sync.WaitGroup
	defer sending.Wait()
	defer func() { _ = conn.Close() }()            // all that matters is read
	sending.Go(func() { _ = request.Write(conn) }) // the response, or its lack, says how it went
	in := bufio.NewReader(conn)
	for {
		response, err := http.ReadResponse(in, request)
		if err != nil {
			return fmt.Errorf("read the server's response: %w", err)
		}
		if response.StatusCode >= 200 {
			return errors.Join(use(response), response.Body.Close())
		}
		if response.StatusCode == http.StatusSwitchingProtocols {
			return fmt.Errorf("the server switched protocols unasked")
		}
	}
}
