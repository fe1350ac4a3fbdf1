// Package webstream speaks HTTP with the server of a guest, over the streams of its session: whatever proxies a request to a
// guest needs no network to it.
package webstream

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// idleWait is how long a connection to a guest is kept for the next request: less than servers do, so that none closes it under a request.
// A guest that freezes or drains must have none.
const idleWait = 3 * time.Second

// NewTransport makes a transport for a guest, whatever host the requests name. Call its CloseIdleConnections before the guest
// is asked to freeze or to drain. Its errors wrap a *wire.Error where the guest said why.
func NewTransport(guest *stream.Opener) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return guest.Open(ctx)
		},
		DisableCompression:  true, // the client and the server agree on that
		IdleConnTimeout:     idleWait,
		MaxIdleConnsPerHost: 32,
	}
}
