package freshettest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// gateway has the functions of a Run, their workers and their calls.
type gateway struct {
	life      context.Context //nolint:containedctx // of the workers and the spawned calls, which end with the gateway
	log       func(...any)
	dial      func(context.Context) (net.Conn, error)
	functions map[string]deployed
	running   sync.WaitGroup // spawned calls

	mu      sync.Mutex
	workers map[string]*starting
	calls   map[string]*spawned
	keys    map[string]*spawned
}

// deployed is a function with the app that has its code.
type deployed struct {
	app  *freshet.App
	spec spec.Function
}

// starting is a worker, once it is ready or has failed.
type starting struct {
	ready  chan struct{}
	worker *worker
	err    error
}

func newGateway(life context.Context, log func(...any), apps []*freshet.App) (*gateway, error) {
	g := &gateway{
		life: life, log: log, functions: make(map[string]deployed), workers: make(map[string]*starting),
		calls: make(map[string]*spawned), keys: make(map[string]*spawned),
	}
	for _, app := range apps {
		manifest, err := app.Manifest()
		if err != nil {
			return nil, err
		}
		for _, f := range manifest.Functions {
			if _, ok := g.functions[f.JobID()]; ok {
				return nil, fmt.Errorf("app %s: there are two of this name: rename one", f.App)
			}
			g.functions[f.JobID()] = deployed{app, f.WithDefaults()}
		}
	}
	return g, nil
}

// target is what a request calls.
type target struct {
	function   deployed
	method     string
	parameters map[string]string
}

// worker is the one of the function and the values of its parameters, started when it is first called.
func (g *gateway) worker(t target) (*worker, *wire.Error) {
	values, err := t.function.spec.Arguments(t.parameters, nil)
	if err != nil {
		return nil, &wire.Error{Kind: wire.KindInput, Message: err.Error()}
	}
	arguments, err := argumentsOf(values)
	if err != nil {
		return nil, &wire.Error{Kind: wire.KindInput, Message: err.Error()}
	}
	if t.method != "" && len(t.function.spec.Methods) == 0 {
		arguments = "{}" // the guest says that there are no methods
	}
	key := t.function.spec.JobID() + " " + arguments
	g.mu.Lock()
	one, started := g.workers[key]
	if !started {
		one = &starting{ready: make(chan struct{})}
		g.workers[key] = one
	}
	g.mu.Unlock()
	if !started {
		one.worker, one.err = startWorker(g.life, t.function.app, t.function.spec, arguments, g)
		close(one.ready)
	}
	<-one.ready
	if one.err != nil {
		var said *wire.Error
		if errors.As(one.err, &said) {
			return nil, &wire.Error{Kind: wire.KindStart, Type: said.Type, Message: said.Message, Traceback: said.Traceback}
		}
		return nil, &wire.Error{Kind: wire.KindStart, Message: one.err.Error()}
	}
	return one.worker, nil
}

// call runs a call to its end, with the attempts that its function's retries allow.
func (g *gateway) call(ctx context.Context, id string, t target, contentType string, input []byte, yield func(output) error) (answer, int) {
	w, failed := g.worker(t)
	if failed != nil {
		return answer{err: failed}, 0
	}
	retries := t.function.spec.Retries
	for attempt := 1; ; attempt++ {
		meta := wire.Call{ID: id, Method: t.method, Attempt: attempt, ContentType: contentType, Stream: yield != nil}
		a := w.attempt(ctx, meta, input, yield)
		if a.err == nil || attempt > retries.Max || !again(a.err.Kind) || !retries.Wants(a.err.Kind) || ctx.Err() != nil {
			return a, attempt
		}
	}
}

// again tells whether a failure of a kind is ever tried again.
func again(kind wire.Kind) bool {
	return kind == wire.KindUser || kind == wire.KindTimeout || kind == wire.KindCrash
}

// spawned is a call whose result is kept.
type spawned struct {
	id      string
	cancel  context.CancelCauseFunc
	ended   chan struct{}
	answer  answer
	attempt int
}

// spawn begins a call; with a key that a call had, it is that call.
func (g *gateway) spawn(t target, key, contentType string, input []byte) *spawned {
	ctx, cancel := context.WithCancelCause(g.life)
	one := &spawned{id: rand.Text(), cancel: cancel, ended: make(chan struct{})}
	g.mu.Lock()
	if old, ok := g.keys[t.function.spec.JobID()+" "+key]; ok && key != "" {
		g.mu.Unlock()
		cancel(nil)
		return old
	}
	g.keys[t.function.spec.JobID()+" "+key], g.calls[one.id] = one, one
	g.mu.Unlock()
	g.running.Go(func() {
		defer cancel(nil)
		one.answer, one.attempt = g.call(ctx, one.id, t, contentType, input, nil)
		close(one.ended)
	})
	return one
}

// find is a call by its id.
func (g *gateway) find(id string) (*spawned, *wire.Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if one, ok := g.calls[id]; ok {
		return one, nil
	}
	return nil, &wire.Error{Kind: kindNotFound, Message: fmt.Sprintf("there is no call %q", id)}
}

// wait waits for a call's end; false when it is not there by then.
func (s *spawned) wait(ctx context.Context, most time.Duration) bool {
	late := time.NewTimer(most)
	defer late.Stop()
	select {
	case <-s.ended:
	case <-late.C:
	case <-ctx.Done():
	}
	select {
	case <-s.ended: // though the time was over too
		return true
	default:
		return false
	}
}

// close ends the calls and the workers, which have no more of them.
func (g *gateway) close() {
	g.running.Wait()
	g.mu.Lock()
	workers := g.workers
	g.workers = nil
	g.mu.Unlock()
	for _, one := range workers {
		if <-one.ready; one.err == nil {
			one.worker.close()
		}
	}
}

// near are names like one that is not there.
func (g *gateway) near(app, function string) []string {
	var names []string
	for id := range g.functions {
		if strings.EqualFold(id, app+"."+function) || strings.HasPrefix(id, app+".") && strings.HasPrefix(id[len(app)+1:], function[:min(len(function), 1)]) {
			names = append(names, id)
		}
	}
	return names
}
