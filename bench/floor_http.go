package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

func serveHTTP(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + listener.Addr().String())
	empty := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	defer context.AfterFunc(ctx, func() { _ = empty.Close() })() // it serves nothing of worth
	if err := empty.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// roundTrips posts to the empty handler, one after the other.
func (f *floors) roundTrips(ctx context.Context, client *http.Client, n int) (samples, error) {
	s := make(samples, 0, n)
	for range n {
		began := time.Now()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.http, bytes.NewReader(input))
		if err != nil {
			return s, err
		}
		response, err := client.Do(request)
		if err != nil {
			return s, err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return s, err
		}
		if err := response.Body.Close(); err != nil {
			return s, err
		}
		s = append(s, time.Since(began))
	}
	return s, nil
}
