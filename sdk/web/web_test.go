package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestServe asks over a listener, and ends as a worker does while a connection is idle and another one in use.
func TestServe(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	hung := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			fmt.Fprintln(w, "begun")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			hung <- context.Cause(r.Context())
			return
		}
		fmt.Fprint(w, r.RemoteAddr)
	})
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, handler) }()
	address := "http://" + listener.Addr().String()
	for client, want := range map[string]string{"192.0.2.1": "192.0.2.1:0", "2001:db8::1": "[2001:db8::1]:0"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Forwarded-For", client)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil || string(got) != want {
			t.Errorf("the client %s was seen as %s, %v", client, got, err)
		}
	}
	response, err := http.Get(address + "/hang")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it is broken off
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil || line != "begun\n" {
		t.Fatalf("%q, %v", line, err)
	}
	began := time.Now()
	stop()
	if err := <-ended; err != nil || time.Since(began) > 10*endWithin {
		t.Errorf("it ended after %s with %v", time.Since(began), err)
	}
	if err := <-hung; !errors.Is(err, context.Canceled) {
		t.Errorf("the request that ran was ended by %v", err)
	}
}

// TestServeEndsWithItsListener: the worker is told.
func TestServeEndsWithItsListener(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := serve(t.Context(), listener, http.NotFoundHandler()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
