package freshettest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// output is what a call returned.
type output struct {
	contentType string
	body        []byte
}

// answer is how an attempt ended.
type answer struct {
	output output
	err    *wire.Error
}

// running is an attempt that the guest runs.
type running struct {
	id    string
	yield func(output) error // nil when nobody wants its values
	done  chan answer        // capacity 1: the first answer counts
}

func (r *running) end(a answer) {
	select {
	case r.done <- a:
	default:
	}
}

// worker is the host of one guest: what a supervisor is in a cluster.
type worker struct {
	spec    spec.Function
	writer  *wire.Writer
	streams *stream.Opener
	dial    func(context.Context) (net.Conn, error)
	log     func(...any)
	slots   chan struct{}
	input   io.Closer
	work    sync.WaitGroup
	control chan wire.Message
	batches *batches

	mu     sync.Mutex
	last   uint64
	calls  map[uint64]*running
	gone   error
	closed chan struct{} // when the guest is gone
}

// startWorker starts a guest of a function and takes it through its hooks.
func startWorker(ctx context.Context, app *freshet.App, f spec.Function, arguments string, g *gateway) (*worker, error) {
	toGuest, input := io.Pipe()
	fromGuest, out := io.Pipe()
	w := &worker{
		spec: f, writer: wire.NewWriter(input), dial: g.dial, log: g.log, slots: make(chan struct{}, f.Concurrency), input: input,
		control: make(chan wire.Message, 4), calls: make(map[uint64]*running), closed: make(chan struct{}),
	}
	w.streams, w.batches = stream.NewOpener(w.writer), newBatches(w)
	w.work.Go(func() {
		err := app.Serve(ctx, toGuest, out, arguments)
		_, _ = toGuest.CloseWithError(err), out.CloseWithError(errors.Join(err, io.EOF))
	})
	w.work.Go(func() { w.read(ctx, wire.NewReader(fromGuest, 0)) })
	if err := w.begin(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// begin greets the guest, and freezes it and thaws it where a cluster would.
func (w *worker) begin() error {
	me := wire.Identity{Namespace: spec.DefaultNamespace, App: w.spec.App, Function: w.spec.Name, Alloc: "freshettest"}
	hello := wire.Hello{
		MinVersion: wire.MinVersion, Version: wire.Version, Identity: me, Entry: w.spec.Handler.Entry,
		Concurrency: w.spec.Concurrency, MaxPayload: wire.DefaultMaxPayload, Gateway: true,
	}
	if err := w.ask(wire.TypeHello, hello, wire.TypeWelcome, wire.TypeReady); err != nil || !w.spec.Snapshot.Enabled {
		return err
	}
	if err := w.ask(wire.TypeFreeze, nil, wire.TypeFrozen); err != nil {
		return err
	}
	return w.ask(wire.TypeThawed, wire.Thawed{Identity: me, Time: time.Now(), Concurrency: w.spec.Concurrency}, wire.TypeReady)
}

// ask sends a message about the whole guest and waits for its answers.
func (w *worker) ask(typ wire.Type, meta any, want ...wire.Type) error {
	if err := w.writer.Write(typ, 0, meta, nil); err != nil {
		return fmt.Errorf("send to the guest: %w", err)
	}
	for _, typ := range want {
		select {
		case msg := <-w.control:
			if msg.Type == wire.TypeFailed {
				failed := &wire.Error{}
				if err := msg.DecodeMeta(failed); err != nil {
					return err
				}
				return failed
			}
			if msg.Type != typ {
				return fmt.Errorf("the guest answered 0x%02x where 0x%02x was due", uint8(msg.Type), uint8(typ))
			}
		case <-w.closed:
			return w.gone
		}
	}
	return nil
}

// read takes the guest's messages until its end.
func (w *worker) read(ctx context.Context, in *wire.Reader) {
	for {
		msg, err := in.Read()
		if err == nil {
			err = w.dispatch(ctx, msg)
		}
		if err != nil {
			w.ended(err)
			return
		}
	}
}

func (w *worker) dispatch(ctx context.Context, msg wire.Message) error {
	if msg.Type.Stream() {
		return w.streams.Handle(msg)
	}
	switch msg.Type {
	case wire.TypeResult, wire.TypeYield:
		var meta wire.Result
		if err := msg.DecodeMeta(&meta); err != nil {
			return err
		}
		return w.answered(msg, answer{output: output{meta.ContentType, msg.Payload}})
	case wire.TypeFailure:
		failed := &wire.Error{}
		if err := msg.DecodeMeta(failed); err != nil {
			return err
		}
		return w.answered(msg, answer{err: failed})
	case wire.TypeLog:
		id := ""
		if call := w.find(msg.Call, false); call != nil {
			id = call.id + " "
		}
		var meta wire.Log
		if err := msg.DecodeMeta(&meta); err != nil {
			return err
		}
		w.log(id + meta.Level + " " + string(msg.Payload))
		return nil
	case wire.TypeDial:
		w.work.Go(func() { w.connect(ctx, msg.Call) })
		return nil
	}
	w.control <- msg
	return nil
}

// connect joins a connection that a function asked for to the gateway.
func (w *worker) connect(ctx context.Context, number uint64) {
	inner, err := w.streams.OpenDial(ctx, number)
	if err != nil {
		return // the guest does not want it any more
	}
	outer, err := w.dial(ctx)
	if err != nil {
		_ = inner.Fail(&wire.Error{Kind: wire.KindLost, Message: err.Error()})
		return
	}
	stream.Join(inner, outer)
}

// find is a call that runs, which ends with it.
func (w *worker) find(number uint64, ends bool) *running {
	w.mu.Lock()
	defer w.mu.Unlock()
	call := w.calls[number]
	if ends {
		delete(w.calls, number)
	}
	return call
}

func (w *worker) answered(msg wire.Message, a answer) error {
	call := w.find(msg.Call, msg.Type != wire.TypeYield)
	switch {
	case call == nil:
		return fmt.Errorf("an answer to call number %d, which is not running", msg.Call)
	case msg.Type != wire.TypeYield:
		call.end(a)
	case call.yield != nil:
		return call.yield(a.output)
	}
	return nil
}

// ended ends the calls of a guest that is gone.
func (w *worker) ended(cause error) {
	w.streams.Close(cause)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = &wire.Error{Kind: wire.KindCrash, Message: "the function's worker ended: " + cause.Error()}
	close(w.closed)
	for number, call := range w.calls {
		delete(w.calls, number)
		call.end(answer{err: &wire.Error{Kind: wire.KindCrash, Message: "the function's worker ended: " + cause.Error()}})
	}
}

// attempt runs one attempt of a call, when a slot is free.
func (w *worker) attempt(ctx context.Context, meta wire.Call, input []byte, yield func(output) error) answer {
	call := &running{id: meta.ID, yield: yield, done: make(chan answer, 1)}
	if w.spec.Batching.MaxSize > 0 {
		return w.batches.run(ctx, call, meta, input)
	}
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return answer{err: cancelled(ctx)}
	}
	meta.Deadline = time.Now().Add(w.spec.Timeout.Std())
	return w.wait(ctx, call, w.send(call, meta, input), meta.Deadline)
}

func (w *worker) send(call *running, meta wire.Call, input []byte) uint64 {
	w.mu.Lock()
	w.last++
	number := w.last
	w.calls[number] = call
	w.mu.Unlock()
	if err := w.writer.Write(wire.TypeCall, number, meta, input); err != nil {
		call.end(answer{err: &wire.Error{Kind: wire.KindCrash, Message: err.Error()}})
	}
	return number
}

// wait waits for a call's end; its time or its caller may end it before. Its slot is then free again: who ignores its context runs on.
func (w *worker) wait(ctx context.Context, call *running, number uint64, deadline time.Time) answer {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case a := <-call.done:
		return a
	case <-ctx.Done():
		return w.cancel(number, cancelled(ctx))
	case <-late.C:
		return w.cancel(number, &wire.Error{Kind: wire.KindTimeout, Message: fmt.Sprintf("the attempt took longer than %s", w.spec.Timeout)})
	}
}

func (w *worker) cancel(number uint64, reason *wire.Error) answer {
	_ = w.writer.Write(wire.TypeCancel, number, wire.Cancel{Kind: reason.Kind}, nil) // a guest that is gone runs nothing
	return answer{err: reason}
}

// cancelled is why a call's context ended.
func cancelled(ctx context.Context) *wire.Error {
	var reason *wire.Error
	if errors.As(context.Cause(ctx), &reason) {
		return reason
	}
	return &wire.Error{Kind: wire.KindCancelled, Message: "the call was cancelled"}
}

// close lets the guest finish its calls and run its exit hook.
func (w *worker) close() {
	drained := w.ask(wire.TypeDrain, nil, wire.TypeDrained)
	_ = w.input.Close()
	w.work.Wait()
	var failed *wire.Error
	if drained != nil && !errors.As(drained, &failed) {
		w.log("freshettest: drain", w.spec.JobID()+":", drained)
	}
}

// argumentsOf are the values of a class's parameters as its guest reads them.
func argumentsOf(values spec.Arguments) (string, error) {
	data, err := json.Marshal(values)
	if err != nil {
		return "", fmt.Errorf("encode parameters: %w", err)
	}
	return string(data), nil
}
