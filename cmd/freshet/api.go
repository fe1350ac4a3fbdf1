package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// apiClient speaks the part of the gateway's HTTP API that is for tools rather than callers.
type apiClient struct {
	base, token string
	http        *http.Client
}

func newAPIClient(base, token string) apiClient {
	return apiClient{base: strings.TrimRight(base, "/"), token: token, http: &http.Client{}}
}

// do sends a request and returns the response of a success; any other status becomes an error with the gateway's words.
func (a apiClient) do(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	address := a.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	return a.exchange(request)
}

// exchange sends a request as do does.
func (a apiClient) exchange(request *http.Request) (*http.Response, error) {
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("reach the gateway: %w", err)
	}
	if response.StatusCode/100 != 2 {
		defer func() { _ = response.Body.Close() }() // the error is what counts
		return nil, apiError(response)
	}
	return response, nil
}

// apiFailure is what the gateway refused, in its words.
type apiFailure struct {
	status int
	// kind is one of the kinds that docs/http-api.md lists; empty where no gateway answered.
	kind, message string
}

func (e *apiFailure) Error() string { return e.message }

func apiError(response *http.Response) error {
	failure := &apiFailure{status: response.StatusCode}
	var body struct {
		Error struct {
			Kind    string   `json:"kind"`
			Message string   `json:"message"`
			Near    []string `json:"near"`
		} `json:"error"`
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil || json.Unmarshal(data, &body) != nil || body.Error.Message == "" {
		failure.message = "the gateway answered " + response.Status
		return failure
	}
	failure.kind, failure.message = body.Error.Kind, body.Error.Message
	if len(body.Error.Near) > 0 {
		failure.message += " (did you mean " + strings.Join(body.Error.Near, " or ") + "?)"
	}
	return failure
}

// get decodes a JSON answer.
func (a apiClient) get(ctx context.Context, path string, query url.Values, into any) error {
	return a.json(ctx, http.MethodGet, path, query, nil, into)
}

func (a apiClient) json(ctx context.Context, method, path string, query url.Values, body, into any) error {
	var in io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		in = bytes.NewReader(data)
	}
	return a.send(ctx, method, path, query, in, into)
}

// send sends a body of any length and decodes a JSON answer.
func (a apiClient) send(ctx context.Context, method, path string, query url.Values, in io.Reader, into any) error {
	response, err := a.do(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	return nil
}

// splitName reads APP.FUNCTION.
func splitName(name string) (app, function string, err error) {
	app, function, ok := strings.Cut(name, ".")
	if !ok || app == "" || function == "" || strings.Contains(function, ".") {
		return "", "", fmt.Errorf("function %q: write APP.FUNCTION, such as gosearch.search", name)
	}
	return app, function, nil
}
