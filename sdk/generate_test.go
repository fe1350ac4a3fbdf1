package freshet

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// newGenerators has a generator that counts up to its input, fails at 13, and ends early when it is told to.
func newGenerators(ended chan<- error) *App {
	app := New("test")
	Generate(app, "count", func(ctx context.Context, to int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			defer func() { ended <- context.Cause(ctx) }()
			for i := range to {
				if i == 13 {
					yield(0, errors.New("unlucky"))
					return
				}
				if !yield(i, nil) {
					return
				}
			}
		}
	})
	Func(app, "plain", func(_ context.Context, n int) (int, error) { return n, nil })
	return app
}

func TestGeneratorYieldsOrCollects(t *testing.T) {
	ended := make(chan error, 8)
	h := serve(t, newGenerators(ended)).greet("count")
	stream := attempt("a")
	stream.Stream = true
	h.send(wire.TypeCall, 1, stream, "3")
	for _, want := range []string{"0", "1", "2"} {
		if msg := h.next(wire.TypeYield); string(msg.Payload) != want || msg.Call != 1 {
			t.Errorf("yielded %s, want %s", msg.Payload, want)
		}
	}
	if msg := h.next(wire.TypeResult); len(msg.Payload) != 0 {
		t.Errorf("a stream's output is %s", msg.Payload)
	}
	h.send(wire.TypeCall, 2, attempt("b"), "3")
	if msg := h.next(wire.TypeResult); string(msg.Payload) != "[0,1,2]" {
		t.Errorf("all at once: %s", msg.Payload)
	}
	h.send(wire.TypeCall, 3, attempt("c"), "0")
	if msg := h.next(wire.TypeResult); string(msg.Payload) != "[]" {
		t.Errorf("nothing at all: %s", msg.Payload)
	}
	h.send(wire.TypeCall, 4, attempt("d"), "20")
	if fault := h.fault(wire.TypeFailure); fault.Kind != wire.KindUser || fault.Message != "unlucky" {
		t.Errorf("a failing generator: %+v", fault)
	}
	h.send(wire.TypeCall, 5, stream, `"three"`)
	if fault := h.fault(wire.TypeFailure); fault.Kind != wire.KindInput {
		t.Errorf("a wrong input: %+v", fault)
	}
}

func TestCancelledGeneratorEnds(t *testing.T) {
	ended := make(chan error, 1)
	h := serve(t, newEndless(ended)).greet("endless")
	stream := attempt("a")
	stream.Stream = true
	h.send(wire.TypeCall, 1, stream, "1")
	h.next(wire.TypeYield)
	h.send(wire.TypeCancel, 1, wire.Cancel{Kind: wire.KindCancelled}, "")
	for {
		msg, err := h.read.Read()
		if err != nil {
			t.Fatal(err)
		}
		if msg.Type == wire.TypeYield {
			continue
		}
		var fault wire.Error
		if err := msg.DecodeMeta(&fault); err != nil || msg.Type != wire.TypeFailure || fault.Kind != wire.KindCancelled {
			t.Errorf("it ended in %s, %v", msg.Meta, err)
		}
		break
	}
	if err := <-ended; err == nil {
		t.Error("its context did not end")
	}
}

func newEndless(ended chan<- error) *App {
	app := New("test")
	Generate(app, "endless", func(ctx context.Context, step int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			defer func() { ended <- context.Cause(ctx) }()
			for i := 0; yield(i, nil); i += step {
			}
		}
	})
	return app
}

// TestPlainFunctionYieldsItsOutput where values are asked for.
func TestPlainFunctionYieldsItsOutput(t *testing.T) {
	h := serve(t, newGenerators(make(chan error, 1))).greet("plain")
	stream := attempt("a")
	stream.Stream = true
	h.send(wire.TypeCall, 1, stream, "7")
	if msg := h.next(wire.TypeYield); string(msg.Payload) != "7" {
		t.Errorf("yielded %s", msg.Payload)
	}
	h.next(wire.TypeResult)
}
