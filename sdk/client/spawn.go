package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Spawn makes a call and returns its id as soon as the cluster has it for certain. Its result can be fetched for 7 days, or as long as
// request.Keep says.
func (c *Client) Spawn(ctx context.Context, request Request) (call string, err error) {
	response, err := c.do(ctx, request, "spawn")
	return response.Call, err
}

// resultWait is how long one request for a result waits.
const resultWait = "60s"

// Result waits until a spawned call has ended and returns its output or its error, as Do would have.
func (c *Client) Result(ctx context.Context, call string) (Response, error) {
	address := c.base + "/v1/calls/" + url.PathEscape(call) + "/result?wait=" + resultWait
	for {
		response, err := c.again(ctx, func() (Response, time.Duration, error) {
			return c.send(ctx, http.MethodGet, address, Request{Function: call})
		})
		if err != nil || response.status != http.StatusAccepted {
			return response, err
		}
	}
}

// Cancel ends a spawned call, whether it waits or runs. It is an error when the call has ended before.
func (c *Client) Cancel(ctx context.Context, call string) error {
	address := c.base + "/v1/calls/" + url.PathEscape(call) + "/cancel"
	_, err := c.again(ctx, func() (Response, time.Duration, error) {
		return c.send(ctx, http.MethodPost, address, Request{Function: call})
	})
	return err
}

// errCutOff says that a stream ended without its last line.
var errCutOff = errors.New("the stream was cut off")

// Stream calls a generator and yields each value as it comes: JSON as the function wrote it (text as a JSON string), bytes as they are. An error ends
// it: the call's own one, or one of the connection, after which values may be missing. A consumer who stops ends the call.
func (c *Client) Stream(ctx context.Context, request Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		address, err := c.address(request, "stream")
		if err != nil {
			yield(nil, err)
			return
		}
		request.timed = true
		httpRequest, err := c.newRequest(ctx, http.MethodPost, address, request)
		if err != nil {
			yield(nil, err)
			return
		}
		httpRequest.Header.Del("Idempotency-Key")
		response, err := c.http.Do(httpRequest)
		if err != nil {
			yield(nil, fmt.Errorf("call %s: %w", request.Function, err))
			return
		}
		defer func() { _ = response.Body.Close() }() // read as far as wanted
		if response.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(response.Body) // the status says the rest
			yield(nil, fmt.Errorf("call %s: %w", request.Function, newError(response, body)))
			return
		}
		if err := readStream(response, yield); err != nil {
			yield(nil, fmt.Errorf("call %s: %w", request.Function, err))
		}
	}
}

// streamLine is a value, or the end.
type streamLine struct {
	Value  json.RawMessage `json:"value"`
	Base64 []byte          `json:"value_base64"`
	Done   *bool           `json:"done"`
	Error  *errorBody      `json:"error"`
}

// readStream yields the values of an answer; it returns nil when the consumer stopped, or after the last line of a good end.
func readStream(response *http.Response, yield func([]byte, error) bool) error {
	lines := bufio.NewReaderSize(response.Body, 64<<10)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("%w: %w", errCutOff, err)
		}
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue // it is alive
		}
		var line streamLine
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("read value: %w", err)
		}
		switch {
		case line.Error != nil:
			return &Error{Fault: line.Error.fault(), Status: response.StatusCode, Call: response.Header.Get("Freshet-Call")}
		case line.Done != nil:
			return nil
		case !yield(line.bytes(), nil):
			return nil
		}
	}
}

func (l streamLine) bytes() []byte {
	if l.Base64 != nil {
		return l.Base64
	}
	return l.Value
}
