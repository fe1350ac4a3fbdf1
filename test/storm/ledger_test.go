package storm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// outcome is how a call ended, as somebody was told: callers during the storm, and whoever asks afterwards.
type outcome struct {
	// Status is done, failed or cancelled. Kind is the error's.
	Status, Kind string
	// Output is what the function answered.
	Output string
}

// ways to make a call.
const (
	byCall   = "call"
	bySpawn  = "spawn"
	byBatch  = "batch"
	byMap    = "map"
	byStream = "stream"
)

// accepted is a call that the cluster took: its caller was answered with 2xx, or with the call's end.
type accepted struct {
	way, function, id string
	in                input
	// key is that of a call that was waited for: sent again, it tells how the call ended.
	key string
	// told is how the call ended, where its caller was told.
	told *outcome
	// cancelled says that the caller was told that it is.
	cancelled bool
}

// input is the guest's.
type input struct {
	N      int `json:"n"`
	Millis int `json:"ms"`
	Fail   int `json:"fail,omitempty"`
	Crash  int `json:"crash,omitempty"`
}

// ledger is what callers know.
type ledger struct {
	mu       sync.Mutex
	calls    map[string]*accepted
	batches  []*many
	maps     []*many
	again    int // requests that were sent again
	wrong    []string
	innocent []string // calls that failed though their code did not
}

// many are the calls of a batch or a map.
type many struct {
	id, function string
	in           []input
}

func newLedger() *ledger { return &ledger{calls: make(map[string]*accepted)} }

// take enters a call, once however often its caller was told.
func (l *ledger) take(a accepted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.calls[a.id]; ok && known.in != a.in {
		l.wrong = append(l.wrong, fmt.Sprintf("call %s was given to two inputs: %+v and %+v", a.id, known.in, a.in))
	}
	l.calls[a.id] = &a
}

// retried counts a request that was sent again.
func (l *ledger) retried() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.again++
}

// complain notes what must not be.
func (l *ledger) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// tally counts, for people.
type tally map[string]int

func (t tally) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(t)) {
		parts = append(parts, fmt.Sprintf("%d %s", t[name], name))
	}
	return strings.Join(parts, ", ")
}
