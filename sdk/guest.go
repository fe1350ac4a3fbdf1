package freshet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// serveStdio serves calls on the process's standard streams. What the program prints on standard output goes to standard
// error from here on, so that it cannot break the protocol.
func (a *App) serveStdio(ctx context.Context, arguments string) error {
	protocol, err := takeStdout()
	if err != nil {
		return err
	}
	return a.Serve(ctx, os.Stdin, protocol, arguments)
}

// Serve is a guest that speaks the protocol of package wire, until the host closes the input or asks for the end. Arguments are the values
// of a class's parameters, a JSON object. [App.Main] serves on the process's own streams; package freshettest needs no process.
// An app may be served several times at once: each guest of a class has a T of its own.
func (a *App) Serve(ctx context.Context, in io.Reader, out io.Writer, arguments string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := &guest{app: a, arguments: arguments, writer: wire.NewWriter(out), cancels: make(map[uint64]context.CancelCauseFunc), batches: make(map[uint64]*batch)}
	g.bodies, g.dials = stream.NewBodies(g.writer), stream.NewDials(g.writer)
	g.streams = stream.NewAcceptor(g.writer, g.accept)
	err := g.run(ctx, wire.NewReader(in, 0))
	cancel()
	if errors.Is(err, errServed) {
		return err // the reader waits for a host that is not to be waited for
	}
	g.dials.End()
	served := g.server.end()
	g.streams.Close(err)
	g.readers.Wait()
	if served != nil {
		return served // and the host went once it was told
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errDrained) {
		return nil // the host is gone, or has no more calls
	}
	return err
}

// guest is a session with the host.
type guest struct {
	app       *App
	arguments string
	function  *function
	// self is what the guest of a class holds; hooks are the guest's.
	self   any
	hooks  hooks
	writer *wire.Writer
	// dials are the connections to the gateway; reaches says that the host makes them.
	dials   *stream.Dials
	reaches bool
	// bodies are the inputs and outputs that are too large for a message, streams what they come by.
	bodies  *stream.Bodies
	streams *stream.Acceptor
	// server is nil for a function without one.
	server *server
	// most is the largest output that fits into a message; 0 where the host takes no larger ones.
	most int64

	// reading passes the reader on to the next one of the readers; waiting is how many of them wait for it.
	reading chan *wire.Reader
	readers sync.WaitGroup
	waiting atomic.Int32
	ended   chan error
	calls   sync.WaitGroup // those that run

	mu       sync.Mutex
	cancels  map[uint64]context.CancelCauseFunc // of the running calls
	batches  map[uint64]*batch                  // by their numbers, those that run or are not whole
	identity wire.Identity
}

// errDrained ends a session as the host asked.
var errDrained = errors.New("drained")

// run takes the host's messages until the end. Who reads a call runs it, and hands the reading over: a call then waits for
// no other thread to wake up, which in a sandbox takes longer than the rest of its way (docs/decisions/0007).
func (g *guest) run(ctx context.Context, in *wire.Reader) error {
	g.reading, g.ended = make(chan *wire.Reader, 1), make(chan error, 1)
	g.reading <- in
	g.readers.Go(func() { g.read(ctx) })
	err := <-g.ended
	close(g.reading)
	return err
}

// read takes turns with others: each holds the reader until it has a call to run. One more begins when none is waiting.
func (g *guest) read(ctx context.Context) {
	for {
		g.waiting.Add(1)
		in, ok := <-g.reading
		g.waiting.Add(-1)
		if !ok {
			return
		}
		call, err := g.next(ctx, in)
		if err != nil {
			g.ended <- err
			return
		}
		if g.waiting.Load() == 0 {
			g.readers.Go(func() { g.read(ctx) })
		}
		g.reading <- in
		call()
	}
}

// next handles messages up to a call, which it returns to be run.
func (g *guest) next(ctx context.Context, in *wire.Reader) (func(), error) {
	for {
		msg, err := in.Read()
		if err != nil {
			return nil, err
		}
		if msg.Type == wire.TypeCall && g.function != nil {
			if call, err := g.call(ctx, msg); call != nil || err != nil {
				return call, err
			}
			continue // more calls of its batch are to come
		}
		if err := g.handle(ctx, msg); err != nil {
			return nil, err
		}
	}
}

func (g *guest) handle(ctx context.Context, msg wire.Message) error {
	if g.function == nil && msg.Type != wire.TypeHello {
		return fmt.Errorf("the host sent message 0x%02x before its greeting", uint8(msg.Type))
	}
	if msg.Type.Stream() {
		return g.streams.Handle(msg)
	}
	switch msg.Type {
	case wire.TypeHello:
		return g.hello(ctx, msg)
	case wire.TypeCancel:
		return g.cancel(msg)
	case wire.TypeFreeze:
		return g.freeze(ctx)
	case wire.TypeThawed:
		return g.thawed(ctx, msg)
	case wire.TypeDrain:
		g.calls.Wait()
		_ = g.server.end() // who drains a worker has no more requests
		if err := g.exit(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "freshet: exit hook:", err) // nothing is left that it could fail
		}
		if err := g.writer.Write(wire.TypeDrained, 0, nil, nil); err != nil {
			return err
		}
		return errDrained
	}
	return fmt.Errorf("the host sent message 0x%02x, which a guest does not take", uint8(msg.Type))
}

// hello agrees on a version and runs the enter hook of the function that the worker is for.
func (g *guest) hello(ctx context.Context, msg wire.Message) error {
	var hello wire.Hello
	if err := msg.DecodeMeta(&hello); err != nil {
		return err
	}
	version, err := wire.Negotiate(hello)
	if err != nil {
		return g.fail(err)
	}
	function, ok := g.app.find(hello.Entry)
	welcome := wire.Welcome{Version: version, SDK: "go/1", Streams: ok && function.server != nil}
	if err := g.writer.Write(wire.TypeWelcome, 0, welcome, nil); err != nil {
		return err
	}
	if !ok {
		return g.fail(fmt.Errorf("the program has no function %q: the job's handler.entry must name one", hello.Entry))
	}
	g.function, g.hooks, g.reaches = function, function.hooks, hello.Gateway
	if function.instance != nil {
		var own hooks
		g.self, own = function.instance(g.arguments)
		g.hooks = g.hooks.over(own)
	}
	if hello.Payloads {
		g.most = hello.MaxPayload
	}
	g.setIdentity(hello.Identity)
	if g.hooks.set != nil {
		if err := g.hooks.set(); err != nil {
			return g.fail(err)
		}
	}
	if err := g.hook(ctx, g.hooks.enter); err != nil {
		return err
	}
	if function.server != nil {
		startServer(ctx, g)
	}
	return nil
}

// hook runs a hook and tells the host whether it worked.
func (g *guest) hook(ctx context.Context, hook func(context.Context) error) error {
	if hook != nil {
		if err := protect(func() error { return hook(g.context(ctx, "", 0, 0)) }); err != nil {
			return g.fail(err)
		}
	}
	return g.writer.Write(wire.TypeReady, 0, wire.Ready{Payloads: true}, nil)
}

// exit runs the last hook.
func (g *guest) exit(ctx context.Context) error {
	hook := g.hooks.exit
	if hook == nil {
		return nil
	}
	return protect(func() error { return hook(g.context(ctx, "", 0, 0)) })
}

// fail tells the host why this guest cannot serve, and ends it.
func (g *guest) fail(err error) error {
	if sent := g.writer.Write(wire.TypeFailed, 0, callError(err), nil); sent != nil {
		return sent
	}
	return err
}

// call prepares a call that runs beside the others; nil when it waits for others of its batch.
func (g *guest) call(ctx context.Context, msg wire.Message) (func(), error) {
	var meta wire.Call
	if err := msg.DecodeMeta(&meta); err != nil {
		return nil, err
	}
	if g.function.together != nil {
		return g.gather(ctx, meta, msg), nil
	}
	ctx, cancel := context.WithCancelCause(g.context(ctx, meta.ID, meta.Attempt, msg.Call))
	g.mu.Lock()
	g.cancels[msg.Call] = cancel
	g.mu.Unlock()
	g.calls.Add(1)
	if meta.Large > 0 {
		g.bodies.Begin(msg.Call)
	}
	return func() {
		defer g.calls.Done()
		defer g.bodies.End(msg.Call)
		defer g.forget(msg.Call, cancel)
		g.answer(timed{ctx, meta.Deadline}, msg.Call, meta, msg.Payload)
	}, nil
}

func (g *guest) forget(number uint64, cancel context.CancelCauseFunc) {
	cancel(nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.cancels, number)
}

func (g *guest) answer(ctx context.Context, number uint64, meta wire.Call, input []byte) {
	var contentType string
	var output []byte
	err := protect(func() error {
		input, err := g.whole(ctx, number, meta, input)
		if err != nil {
			return err
		}
		contentType, output, err = g.serve(ctx, number, meta, input)
		return err
	})
	g.end(ctx, number, meta.ID, contentType, output, err)
}

// end tells the host how a call ended.
func (g *guest) end(ctx context.Context, number uint64, id, contentType string, output []byte, err error) {
	if err != nil {
		err = g.writer.Write(wire.TypeFailure, number, callError(err), nil)
	} else {
		err = g.result(ctx, number, contentType, output)
	}
	if err != nil { // without the host there is nobody to tell but the log
		fmt.Fprintln(os.Stderr, "freshet: answer call", id+":", err)
	}
}

// serve runs the user's function. What it gives goes to the host as values where those are asked for, else as one output.
func (g *guest) serve(ctx context.Context, number uint64, meta wire.Call, input []byte) (contentType string, output []byte, err error) {
	yield := func(contentType string, value []byte) error {
		return g.writer.Write(wire.TypeYield, number, wire.Result{ContentType: contentType}, value)
	}
	if f := g.function; f.generate == nil {
		m, err := f.method(meta.Method)
		if err != nil {
			return "", nil, err
		}
		contentType, output, err = m.run(ctx, meta.ContentType, input)
		if err == nil && meta.Stream {
			return "", nil, yield(contentType, output)
		}
		return contentType, output, err
	}
	if meta.Method != "" {
		return "", nil, noMethod(meta.Method)
	}
	if meta.Stream {
		return "", nil, g.function.generate(ctx, meta.ContentType, input, yield)
	}
	list := []any{} // an empty list in JSON, never null
	err = g.function.generate(ctx, meta.ContentType, input, func(contentType string, value []byte) error {
		switch contentType {
		case "application/json":
			list = append(list, json.RawMessage(value))
		case "application/octet-stream":
			list = append(list, value)
		default:
			list = append(list, string(value))
		}
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	return encode(list)
}

// protect makes a panic an error.
func protect(fn func() error) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = &Error{Kind: wire.KindUser, Type: "panic", Message: fmt.Sprint(reason), Traceback: string(debug.Stack())}
		}
	}()
	return fn()
}

func (g *guest) cancel(msg wire.Message) error {
	var meta wire.Cancel
	if err := msg.DecodeMeta(&meta); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaveLocked(msg.Call, meta.Kind)
	if cancel, ok := g.cancels[msg.Call]; ok {
		cancel(&Error{Kind: meta.Kind, Message: "the call was ended from outside"})
	}
	return nil
}

// freeze makes the process quiet: no calls, no garbage, and nothing written after Frozen.
func (g *guest) freeze(ctx context.Context) error {
	g.calls.Wait()
	if hook := g.hooks.beforeFreeze; hook != nil {
		if err := protect(func() error { return hook(g.context(ctx, "", 0, 0)) }); err != nil {
			return g.fail(err)
		}
	}
	g.dials.Close()
	debug.FreeOSMemory() // what the snapshot does not hold need not be thawed
	return g.writer.Write(wire.TypeFrozen, 0, nil, nil)
}

// thawed begins the life of a copy, or goes on with the original's.
func (g *guest) thawed(ctx context.Context, msg wire.Message) error {
	var meta wire.Thawed
	if err := msg.DecodeMeta(&meta); err != nil {
		return err
	}
	g.setIdentity(meta.Identity)
	reseed(meta.Entropy)
	return g.hook(ctx, g.hooks.afterThaw)
}

func (g *guest) setIdentity(identity wire.Identity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.identity = identity
}

// log sends a line to the host.
func (g *guest) log(number uint64, level, text string) error {
	return g.writer.Write(wire.TypeLog, number, wire.Log{Time: time.Now(), Level: level}, []byte(text))
}
