package webstream_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/freshet-dev/freshet/internal/webstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proxy passes requests on as gateways and doors do; it asks before it sends a body.
func proxy(t *testing.T, to string) *httptest.Server {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, body := webstream.Accept(w, r)
		(&httputil.ReverseProxy{
			Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(target)
				p.Out.Header.Set("Expect", "100-continue")
			},
			Transport:      transport,
			ModifyResponse: func(response *http.Response) error { body.Answer(response.Header); return nil },
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				body.Answer(w.Header())
				http.Error(w, err.Error(), http.StatusBadGateway)
			},
		}).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

// TestConnectionsAreUsedAgain sends one request after another over one connection, through proxies to a server that reads bodies, or
// some of them, or breaks off.
func TestConnectionsAreUsedAgain(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/read":
			_, _ = io.Copy(w, r.Body)
		case "/some":
			_, _ = io.ReadFull(r.Body, make([]byte, 1))
		case "/break":
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	front := proxy(t, proxy(t, server.URL).URL)
	client := front.Client()
	for i := range 50 {
		for _, path := range []string{"/read", "/some", "/none", "/break"} {
			for _, body := range []string{"", "x", strings.Repeat("y", 100<<10)} {
				response, err := client.Post(front.URL+path, "text/plain", strings.NewReader(body))
				if err != nil {
					t.Fatalf("round %d, %s with %d bytes: %v", i, path, len(body), err)
				}
				got, err := io.ReadAll(response.Body)
				if err := errors.Join(err, response.Body.Close()); err != nil {
					t.Fatalf("round %d, %s with %d bytes: %v", i, path, len(body), err)
				}
				if path == "/read" && string(got) != body || (path == "/break") != (response.StatusCode == http.StatusBadGateway) {
					t.Fatalf("round %d, %s with %d bytes: %s, %.200s", i, path, len(body), response.Status, got)
				}
			}
		}
	}
}
