package guestinit

import (
	"context"
	"sync"
)

// gate counts what runs, and can be shut while it empties.
type gate struct {
	mu      sync.Mutex
	running int
	reason  error         // of being shut; nil is open
	empty   chan struct{} // closed when the last one left a shut gate
}

// enter lets one in, or tells why not. Each that is in must leave.
func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reason != nil {
		return g.reason
	}
	g.running++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	if g.running == 0 && g.reason != nil {
		close(g.empty)
	}
}

// busy tells whether anything runs.
func (g *gate) busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running > 0
}

// shut lets nobody in, and returns a channel that is closed when nobody is left inside.
func (g *gate) shut(reason error) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reason == nil {
		g.empty = make(chan struct{})
		if g.running == 0 {
			close(g.empty)
		}
	}
	g.reason = reason
	return g.empty
}

// open lets in again. Only an empty gate is opened.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reason = nil
}

// wait waits for a shut gate to be empty.
func wait(ctx context.Context, empty <-chan struct{}) error {
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
