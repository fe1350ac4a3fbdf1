// Package web makes an http.Handler a function: clients reach it at the gateway's path /web/APP/NAME/ and by host names. It is a package of
// its own so that programs without a web endpoint carry no HTTP server.
package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

const (
	// headersWithin bounds how long the headers of a request may take, which the worker has in whole when it opens a connection.
	headersWithin = time.Minute
	// endWithin bounds how long connections that nobody uses take to close.
	endWithin = time.Second
)

// Handle adds a function that answers requests to the app, under a name. The handler sees paths without the prefix /web/APP/NAME, and
// streams both ways: it may flush, hijack the connection for a WebSocket, and read while it writes. A request's context ends when its
// client goes away; freshet.Worker and freshet.Logger work with it. Its RemoteAddr is the client's address with port 0, and the header
// Freshet-Call its id. A handler that panics gives no answer, which the client reads as 502.
//
// Many requests at once run in one worker, 100 unless freshet.Concurrency says otherwise; a freshet.Enter hook loads what they share, and is
// not run again by workers that thaw from its snapshot. freshet.Timeout bounds how long nothing may come or go.
func Handle(app *freshet.App, name string, handler http.Handler, options ...freshet.Option) {
	freshet.Server(app, name, func(ctx context.Context, listener net.Listener) error {
		return serve(ctx, listener, handler)
	}, options...)
}

// serve answers requests until the context ends.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	requests := context.WithoutCancel(ctx) // they end with their connections
	server := &http.Server{
		Handler: known(handler), ReadHeaderTimeout: headersWithin,
		BaseContext: func(net.Listener) context.Context { return requests },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // received below, always
	select {
	case err := <-served:
		return fmt.Errorf("serve requests: %w", err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(requests, endWithin)
	defer cancel()
	err := server.Shutdown(ending)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close() // the worker had none that still counted
	}
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// known gives requests the address of their client, which the gateway tells.
func known(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if client := r.Header.Get("X-Forwarded-For"); client != "" {
			r.RemoteAddr = net.JoinHostPort(client, "0")
		}
		handler.ServeHTTP(w, r)
	})
}
