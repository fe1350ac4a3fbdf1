package client_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/client"
)

// gateway answers as a gateway does; handle is given the number of the request, from 1.
func gateway(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, number int64)) *client.Client {
	t.Helper()
	var count atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, count.Add(1)) }))
	t.Cleanup(server.Close)
	return client.New(server.URL+"/", client.Namespace("prod"), client.Patience(5*time.Second), client.HTTPClient(server.Client()))
}

func fail(w http.ResponseWriter, status int, body string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func TestCallIsTypedAndSaysWhereItsTimeWent(t *testing.T) {
	c := gateway(t, func(w http.ResponseWriter, r *http.Request, _ int64) {
		if r.URL.Path != "/v1/functions/app/f/call" || r.URL.Query().Get("namespace") != "prod" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("request %s %s %s", r.Method, r.URL, r.Header)
		}
		w.Header().Set("Server-Timing", "queue;dur=1.5, start;dur=20, run;dur=0.25, proxy;dur=x")
		w.Header().Set("Freshet-Attempt", "2")
		w.Header().Set("Freshet-Worker", "alloc")
		_, _ = io.Copy(w, r.Body)
	})
	out, err := client.Call[map[string]int, map[string]int](t.Context(), c, "app.f", map[string]int{"n": 3})
	if err != nil || out["n"] != 3 {
		t.Errorf("got %v, %v", out, err)
	}
	response, err := c.Do(t.Context(), client.Request{Function: "app.f", ContentType: "application/json"})
	if err != nil || response.Queued != 1500*time.Microsecond || response.Started != 20*time.Millisecond || response.Run != 250*time.Microsecond ||
		response.Attempt != 2 || response.Worker != "alloc" {
		t.Errorf("got %+v, %v", response, err)
	}
	if _, err := c.Do(t.Context(), client.Request{Function: "f"}); err == nil || !strings.Contains(err.Error(), "APP.FUNCTION") {
		t.Errorf("a name without app: %v", err)
	}
}

func TestBytesAndTextTravelAsTheyAre(t *testing.T) {
	c := gateway(t, func(w http.ResponseWriter, r *http.Request, _ int64) {
		_, _ = io.WriteString(w, r.Header.Get("Content-Type")+" ")
		_, _ = io.Copy(w, r.Body)
	})
	if out, err := client.Call[string, string](t.Context(), c, "app.f", "x"); err != nil || out != "text/plain; charset=utf-8 x" {
		t.Errorf("got %q, %v", out, err)
	}
	if out, err := client.Call[[]byte, []byte](t.Context(), c, "app.f", []byte{1}); err != nil || string(out) != "application/octet-stream \x01" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := client.Call[string, int](t.Context(), c, "app.f", "x"); err == nil || !strings.Contains(err.Error(), "decode output") {
		t.Errorf("text read as a number: %v", err)
	}
}

func TestAwayAndFullGatewaysAreTriedAgainWithTheSameKey(t *testing.T) {
	var mu sync.Mutex
	var keys []string
	c := gateway(t, func(w http.ResponseWriter, r *http.Request, number int64) {
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		switch number {
		case 1:
			w.Header().Set("Retry-After", "0")
			fail(w, http.StatusTooManyRequests, `{"error":{"kind":"queue_full","message":"full"}}`)
		case 2:
			w.Header().Set("Retry-After", "0")
			fail(w, http.StatusServiceUnavailable, `{"error":{"kind":"unavailable","message":"starting"}}`)
		case 3:
			panic(http.ErrAbortHandler) // the connection breaks
		default:
			_, _ = io.WriteString(w, "done")
		}
	})
	response, err := c.Do(t.Context(), client.Request{Function: "app.f"})
	if err != nil || string(response.Body) != "done" {
		t.Fatalf("got %q, %v", response.Body, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(keys) != 4 || keys[0] == "" || len(slices.Compact(keys)) != 1 {
		t.Errorf("keys %q, want one four times", keys)
	}
}

func TestErrorsOfCallsAreNotTriedAgain(t *testing.T) {
	c := gateway(t, func(w http.ResponseWriter, _ *http.Request, number int64) {
		w.Header().Set("Freshet-Call", "c1")
		if number > 1 {
			t.Error("tried again")
		}
		fail(w, http.StatusNotFound, `{"error":{"kind":"not_found","message":"no function app.g","near":["app.f"]}}`)
	})
	_, err := c.Do(t.Context(), client.Request{Function: "app.g"})
	if client.KindOf(err) != "not_found" || !strings.HasSuffix(err.Error(), "no function app.g (did you mean app.f?)") {
		t.Errorf("got %v", err)
	}
}

func TestAnswersOfProxiesAreErrorsToo(t *testing.T) {
	c := gateway(t, func(w http.ResponseWriter, _ *http.Request, _ int64) { fail(w, http.StatusBadGateway, "<html>") })
	if _, err := c.Do(t.Context(), client.Request{Function: "app.f"}); err == nil || !strings.Contains(err.Error(), "502 Bad Gateway") {
		t.Errorf("got %v", err)
	}
	if client.KindOf(io.EOF) != "" {
		t.Error("io.EOF has a kind")
	}
}

func TestPatienceAndContextEndTheTrying(t *testing.T) {
	c := client.New("http://127.0.0.1:1", client.Patience(0))
	if _, err := c.Do(t.Context(), client.Request{Function: "app.f"}); err == nil {
		t.Error("called nobody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.New("http://127.0.0.1:1").Do(ctx, client.Request{Function: "app.f"}); err == nil {
		t.Error("called with a context that is over")
	}
}
