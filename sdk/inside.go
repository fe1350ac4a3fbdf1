package freshet

import (
	"context"
	"errors"
	"net"
)

// Errors of DialGateway.
var (
	// ErrOutside: the context is none of a worker's.
	ErrOutside = errors.New("this is not a worker: only a function, with the context that it was given, can call others this way; elsewhere use client.New")
	// ErrNoGateway: the node's driver is not told how to reach a gateway.
	ErrNoGateway = errors.New("workers on this node do not reach the gateway: set the block gateway in the driver's configuration")
)

// DialGateway connects a function or a hook to the cluster's gateway, with the context that it was given. No network is needed: the
// connection goes through the worker's own streams, and lets through nothing but calls of functions. client.Inside uses it.
func DialGateway(ctx context.Context) (net.Conn, error) {
	g := from(ctx).guest
	switch {
	case g == nil:
		return nil, ErrOutside
	case !g.reaches:
		return nil, ErrNoGateway
	}
	return g.dials.Dial(ctx)
}

// DeployedAs is the name under which an app is deployed, as one of its functions sees it: `freshet run`, `freshet serve` and freshettest deploy
// an app under names of their own, beside the real one. Any other app's name is its own.
func DeployedAs(ctx context.Context, app string) string {
	g := from(ctx).guest
	if g == nil || g.app.name != app {
		return app
	}
	if as := Worker(ctx).App; as != "" {
		return as
	}
	return app
}
