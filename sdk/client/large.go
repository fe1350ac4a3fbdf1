package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Open makes a call like Do and gives its output as it comes, for outputs that are too large to hold. Close it.
func (c *Client) Open(ctx context.Context, request Request) (Response, io.ReadCloser, error) {
	address, err := c.address(request, "call")
	if err != nil {
		return Response{}, nil, err
	}
	if request.Key == "" {
		request.Key = rand.Text()
	}
	request.timed = true
	return c.once(ctx, address, request, nil)
}

// OpenResult waits for a spawned call like Result and gives its output as it comes. Close it.
func (c *Client) OpenResult(ctx context.Context, call string) (Response, io.ReadCloser, error) {
	address := c.base + "/v1/calls/" + url.PathEscape(call) + "/result?wait=" + resultWait
	for {
		var out io.ReadCloser
		response, err := c.again(ctx, func() (response Response, wait time.Duration, err error) {
			response, out, wait, err = c.open(ctx, http.MethodGet, address, Request{Function: call})
			return response, wait, err
		})
		if err != nil || response.status != http.StatusAccepted {
			return response, out, err
		}
		if err := out.Close(); err != nil {
			return response, nil, fmt.Errorf("call %s: %w", call, err)
		}
	}
}

// once makes a call, and sends it again while that helps; an input that is sent as it is read can be sent only once. read, which may
// be nil, reads the output.
func (c *Client) once(ctx context.Context, address string, request Request, read func(Response, io.ReadCloser) (Response, error)) (Response, io.ReadCloser, error) {
	var out io.ReadCloser
	response, err := c.again(ctx, func() (response Response, wait time.Duration, err error) {
		response, out, wait, err = c.open(ctx, http.MethodPost, address, request)
		if err == nil && read != nil {
			response, err = read(response, out)
		}
		if request.Reader != nil {
			wait = final
		}
		return response, wait, err
	})
	return response, out, err
}

// open sends the request once; the output of a success is still to be read.
func (c *Client) open(ctx context.Context, method, address string, request Request) (Response, io.ReadCloser, time.Duration, error) {
	httpRequest, err := c.newRequest(ctx, method, address, request)
	if err != nil {
		return Response{}, nil, final, err
	}
	httpResponse, err := c.http.Do(httpRequest)
	if err != nil {
		return Response{}, nil, 0, fmt.Errorf("call %s: %w", request.Function, err)
	}
	if httpResponse.StatusCode/100 == 2 {
		return newResponse(httpResponse, nil), httpResponse.Body, 0, nil
	}
	defer func() { _ = httpResponse.Body.Close() }() // read to its end
	body, err := io.ReadAll(httpResponse.Body)
	if err != nil {
		return Response{}, nil, 0, fmt.Errorf("call %s: read the answer: %w", request.Function, err)
	}
	failed := newError(httpResponse, body)
	return Response{}, nil, waitFor(httpResponse), fmt.Errorf("call %s: %w", request.Function, failed)
}

// whole reads an output into its response.
func whole(response Response, out io.ReadCloser) (Response, error) {
	defer func() { _ = out.Close() }() // read to its end
	var err error
	if response.Body, err = io.ReadAll(out); err != nil {
		return Response{}, fmt.Errorf("read the answer: %w", err)
	}
	return response, nil
}
