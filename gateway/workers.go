package gateway

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/queue"
)

// workers is the table of live workers, as their heartbeats tell it.
type workers struct {
	mu sync.RWMutex
	// +checklocks:mu
	fleets map[queue.Function]*fleet
}

// fleet is one function's workers and the sums over those that take calls.
type fleet struct {
	members     map[string]member
	ready       int // workers that take calls
	slots, busy int
}

type member struct {
	queue.Heartbeat
	heard time.Time
}

func newWorkers() *workers { return &workers{fleets: make(map[queue.Function]*fleet)} }

// hear takes a heartbeat.
func (t *workers) hear(beat queue.Heartbeat, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := beat.Key()
	f := t.fleets[key]
	if beat.State == queue.StateStopped {
		if f != nil {
			delete(f.members, beat.Alloc)
			t.settleLocked(key, f)
		}
		return
	}
	if f == nil {
		f = &fleet{members: make(map[string]member)}
		t.fleets[key] = f
	}
	f.members[beat.Alloc] = member{beat, now}
	t.settleLocked(key, f)
}

// settleLocked brings a fleet's sums up to date and forgets one without workers.
func (t *workers) settleLocked(key queue.Function, f *fleet) {
	f.ready, f.slots, f.busy = 0, 0, 0
	for _, m := range f.members {
		if takesCalls(m.State) {
			f.ready++
			f.slots += m.Slots
			f.busy += m.Busy
		}
	}
	if len(f.members) == 0 {
		delete(t.fleets, key)
	}
}

func takesCalls(state queue.State) bool { return state == queue.StateReady || state == queue.StateBusy }

// bury forgets the workers that were not heard since the given time.
func (t *workers) bury(before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, f := range t.fleets {
		count := len(f.members)
		for alloc, m := range f.members {
			if m.heard.Before(before) {
				delete(f.members, alloc)
			}
		}
		if len(f.members) != count {
			t.settleLocked(key, f)
		}
	}
}

// free is the number of slots that are free for a caller who has the given number of calls of its own running: those
// heartbeats are a moment old, its own count is not.
func (t *workers) free(function queue.Function, own int64) int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	f := t.fleets[function]
	if f == nil {
		return 0
	}
	return int64(f.slots) - max(int64(f.busy), own)
}

// count is the number of workers, and of those that take calls.
func (t *workers) count(function queue.Function) (all, ready int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	f := t.fleets[function]
	if f == nil {
		return 0, 0
	}
	return len(f.members), f.ready
}

// list is the live workers of a namespace, of one app or one function where named, in a stable order.
func (t *workers) list(namespace, app, function string) []queue.Heartbeat {
	t.mu.RLock()
	defer t.mu.RUnlock()
	beats := []queue.Heartbeat{} // an empty list in JSON, never null
	for key, f := range t.fleets {
		if namespace != allNamespaces && key.Namespace != namespace ||
			app != "" && key.App != app || function != "" && key.Name != function {
			continue
		}
		for _, m := range f.members {
			beat := m.Heartbeat
			beat.Door = nil // its key is nobody's
			beats = append(beats, beat)
		}
	}
	slices.SortFunc(beats, func(a, b queue.Heartbeat) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.App, b.App),
			cmp.Compare(a.Function, b.Function), cmp.Compare(a.Alloc, b.Alloc))
	})
	return beats
}

// receiveHeartbeat keeps the table.
func (g *Gateway) receiveHeartbeat(msg *nats.Msg) {
	beat, err := queue.ParseHeartbeat(msg.Data)
	if err != nil {
		g.exchange.log.Warn().Err(err).Str("subject", msg.Subject).Msg("drop a heartbeat")
		return
	}
	now := time.Now()
	g.workers.hear(beat, now)
	g.web.Hear(beat, now)
}

// buryWorkers forgets workers that fell silent.
func (g *Gateway) buryWorkers(ctx context.Context) {
	ticker := time.NewTicker(queue.HeartbeatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if g.nc.IsConnected() { // without a connection nobody is heard, which says nothing about them
				silent := time.Now().Add(-queue.DeadAfter)
				g.workers.bury(silent)
				g.web.Bury(silent)
			}
		}
	}
}

// handleWorkers lists the live workers.
func (g *Gateway) handleWorkers(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "app", "function", "usage")
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	of := queue.Function{Namespace: namespaceOf(query), App: query.Get("app"), Name: query.Get("function")}
	if of.Namespace == allNamespaces {
		of.Namespace = ""
	}
	if err := permit(r.Context(), of); err != nil { // a function's name alone is that of many
		g.refuse(w, r, err)
		return
	}
	list := g.workers.list(namespaceOf(query), of.App, of.Name)
	switch wanted := query.Get("usage"); wanted {
	case "", "false":
		g.respond(w, http.StatusOK, list)
	case "true":
		g.respond(w, http.StatusOK, g.execs.usage(r.Context(), list))
	default:
		g.refuse(w, r, badInput("query parameter usage", wanted, "use true or false"))
	}
}
