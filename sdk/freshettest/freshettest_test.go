package freshettest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/freshettest"
	"github.com/freshet-dev/freshet/sdk/wire"
)

type point struct{ X, Y int }

// model is a class with a parameter and hooks.
type model struct {
	Size  string `param:"size" default:"small"`
	turns []string
}

func (m *model) Enter(context.Context) error { m.turns = append(m.turns, "enter "+m.Size); return nil }

func (m *model) BeforeFreeze(context.Context) error { m.turns = append(m.turns, "freeze"); return nil }

func (m *model) AfterThaw(context.Context) error { m.turns = append(m.turns, "thaw"); return nil }

func (m *model) Turns(_ context.Context, _ string) ([]string, error) { return m.turns, nil }

// program is an app with a function for everything, and their handles.
type program struct {
	app    *freshet.App
	swap   freshet.Handle[point, point]
	bytes  freshet.Handle[[]byte, []byte]
	pipe   freshet.Handle[io.Reader, io.Reader]
	fail   freshet.Handle[string, string]
	flaky  freshet.Handle[int, int]
	sleep  freshet.Handle[int, int]
	count  freshet.StreamHandle[int, int]
	square freshet.Handle[int, int]
	turns  freshet.Handle[string, []string]
	sum    freshet.Handle[[]int, int]
}

func newProgram() *program {
	p := &program{app: freshet.New("test")}
	p.swap = freshet.Func(p.app, "swap", func(_ context.Context, in point) (point, error) { return point{in.Y, in.X}, nil })
	p.bytes = freshet.Func(p.app, "bytes", func(_ context.Context, in []byte) ([]byte, error) { slices.Reverse(in); return in, nil })
	p.pipe = freshet.Func(p.app, "pipe", func(_ context.Context, in io.Reader) (io.Reader, error) { return in, nil })
	p.fail = freshet.Func(p.app, "fail", fail)
	p.flaky = freshet.Func(p.app, "flaky", func(ctx context.Context, at int) (int, error) {
		freshet.Logger(ctx).Info("trying", "attempt", freshet.Attempt(ctx))
		if freshet.Attempt(ctx) < at {
			return 0, errors.New("not yet")
		}
		return freshet.Attempt(ctx), nil
	}, freshet.Retries(3, time.Millisecond, 1))
	p.sleep = freshet.Func(p.app, "sleep", func(ctx context.Context, ms int) (int, error) {
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return ms, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}, freshet.Timeout(time.Second), freshet.Concurrency(16))
	p.count = freshet.Generate(p.app, "count", func(_ context.Context, to int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range to {
				if i == 7 {
					yield(0, errors.New("unlucky"))
					return
				}
				if !yield(i, nil) {
					return
				}
			}
		}
	})
	p.square = freshet.Batched(p.app, "square", 8, 5*time.Millisecond, func(_ context.Context, in []int) ([]int, error) {
		out := make([]int, len(in))
		for i, n := range in {
			out[i] = n * n
		}
		return out, nil
	})
	p.turns = freshet.Method(freshet.Class[model](p.app, "model"), "turns", (*model).Turns)
	inside := client.Inside()
	p.sum = freshet.Func(p.app, "sum", func(ctx context.Context, in []int) (int, error) {
		sum := 0
		for square, err := range client.Of(inside, p.square).Map(ctx, slices.Values(in)) {
			if err != nil {
				return 0, err
			}
			sum += square
		}
		return sum, nil
	})
	return p
}

func fail(_ context.Context, how string) (string, error) {
	switch how {
	case "panic":
		panic("at the disco")
	case "input":
		return "", freshet.InputError("%q is no good", how)
	case "wrapped":
		return "", fmt.Errorf("read: %w", io.ErrUnexpectedEOF)
	}
	return "fine", nil
}

func TestCallsAreAsInACluster(t *testing.T) {
	t.Parallel()
	p := newProgram()
	c := freshettest.Run(t, p.app)
	ctx := t.Context()
	if out, err := client.Of(c, p.swap).Call(ctx, point{1, 2}); err != nil || out != (point{2, 1}) {
		t.Errorf("swap: %v, %v", out, err)
	}
	if out, err := client.Named[[]byte, []byte](c, "test.bytes").Call(ctx, []byte("abc")); err != nil || string(out) != "cba" {
		t.Errorf("bytes: %q, %v", out, err)
	}
	large := strings.Repeat("0123456789", 1<<20)
	response, err := c.Do(ctx, client.Request{Function: "test.pipe", Reader: strings.NewReader(large)})
	if err != nil || string(response.Body) != large {
		t.Errorf("pipe: %d bytes, %v", len(response.Body), err)
	}
	if out, err := client.Of(c, p.flaky).Call(ctx, 3); err != nil || out != 3 {
		t.Errorf("flaky: %d, %v", out, err)
	}
	if out, err := client.Of(c, p.sum).Call(ctx, []int{1, 2, 3}); err != nil || out != 14 {
		t.Errorf("sum: %d, %v", out, err)
	}
	for size, want := range map[string]string{"large": "enter large,freeze,thaw", "": "enter small,freeze,thaw"} {
		turns := client.Of(c, p.turns)
		if size != "" {
			turns = turns.With(map[string]any{"size": size})
		}
		if out, err := turns.Call(ctx, ""); err != nil || strings.Join(out, ",") != want {
			t.Errorf("turns: %v, %v, want %s", out, err, want)
		}
	}
}

func TestErrorsSayByTheirTypeHowACallEnded(t *testing.T) {
	t.Parallel()
	p := newProgram()
	c := freshettest.Run(t, p.app)
	_, err := client.Of(c, p.fail).Call(t.Context(), "panic")
	if e, ok := errors.AsType[*client.RemoteError](err); !ok || e.Fault.Type != "panic" || !strings.Contains(e.Fault.Traceback, "freshettest_test.go") {
		t.Errorf("a panic: %v", err)
	}
	_, err = client.Of(c, p.fail).Call(t.Context(), "wrapped")
	if e, ok := errors.AsType[*client.RemoteError](err); !ok || e.Fault.Message != "read: unexpected EOF" || e.Call == "" {
		t.Errorf("an error: %v", err)
	}
	if out, err := client.Of(c, p.fail).Call(t.Context(), "not at all"); err != nil || out != "fine" {
		t.Errorf("after a panic the worker answers %q, %v", out, err)
	}
	_, err = client.Of(c, p.fail).Call(t.Context(), "input")
	if _, ok := errors.AsType[*client.InputError](err); !ok {
		t.Errorf("an input: %v", err)
	}
	_, err = client.Of(c, p.sleep).Call(t.Context(), 60_000)
	if _, ok := errors.AsType[*client.TimeoutError](err); !ok || client.KindOf(err) != wire.KindTimeout {
		t.Errorf("a timeout: %v", err)
	}
	_, err = client.Named[string, string](c, "test.swop").Call(t.Context(), "")
	if e, ok := errors.AsType[*client.NotFoundError](err); !ok || !slices.Contains(e.Near, "test.swap") {
		t.Errorf("a name that is none: %v", err)
	}
	_, err = client.Named[string, string](c, "test.model.tuns").Call(t.Context(), "")
	if _, ok := errors.AsType[*client.NotFoundError](err); !ok {
		t.Errorf("a method that is none: %v", err)
	}
}

func TestMapsSpawnsAndStreams(t *testing.T) {
	t.Parallel()
	p := newProgram()
	c := freshettest.Run(t, p.app)
	ctx := t.Context()
	var squares []int
	for out, err := range client.Of(c, p.square).Map(ctx, slices.Values([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})) {
		if err != nil {
			t.Fatal(err)
		}
		squares = append(squares, out)
	}
	if !slices.Equal(squares, []int{1, 4, 9, 16, 25, 36, 49, 64, 81, 100}) {
		t.Errorf("squares %v", squares)
	}
	seen := map[int]bool{}
	for result, err := range client.Of(c, p.sleep).MapUnordered(ctx, slices.Values([]int{20, 1, 10})) {
		if err != nil || result.Err != nil {
			t.Fatal(err, result.Err)
		}
		seen[result.Index] = true
	}
	if len(seen) != 3 {
		t.Errorf("ends of %v", seen)
	}
	err := client.Of(c, p.fail).ForEach(ctx, slices.Values([]string{"", "wrapped", "", "input"}))
	if err == nil || !strings.Contains(err.Error(), "input 1: ") || !strings.Contains(err.Error(), "input 3: ") || strings.Contains(err.Error(), "input 0") {
		t.Errorf("for each: %v", err)
	}
	var calls []client.FunctionCall[point]
	for i := range 3 {
		call, err := client.Of(c, p.swap).Spawn(ctx, point{i, 0})
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, client.Spawned[point](c, call.ID()))
	}
	for i, result := range client.GetMany(ctx, calls...) {
		if result.Err != nil || result.Output.Y != i {
			t.Errorf("call %d: %+v", i, result)
		}
	}
	slow, err := client.Of(c, p.sleep).Spawn(ctx, 500)
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Cancel(ctx); err != nil {
		t.Error(err)
	}
	_, err = slow.Get(ctx)
	if _, ok := errors.AsType[*client.CancelledError](err); !ok {
		t.Errorf("a cancelled call: %v", err)
	}
	var values []int
	for value, err := range client.StreamOf(c, p.count).Values(ctx, 20) {
		if err != nil {
			if e, ok := errors.AsType[*client.RemoteError](err); !ok || e.Fault.Message != "unlucky" {
				t.Errorf("the end of a stream: %v", err)
			}
			break
		}
		values = append(values, value)
	}
	if all, err := client.StreamOf(c, p.count).Call(ctx, 3); err != nil || len(values) != 7 || !slices.Equal(all, values[:3]) {
		t.Errorf("values %v, all %v, %v", values, all, err)
	}
}

func TestContextsReachTheFunction(t *testing.T) {
	t.Parallel()
	app := freshet.New("test")
	began, ended := make(chan bool), make(chan error, 1)
	wait := freshet.Func(app, "wait", func(ctx context.Context, _ string) (string, error) {
		began <- true
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return "", ctx.Err()
	})
	c := freshettest.Run(t, app)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	_, err := client.Of(c, wait).CancelWithContext().Call(ctx, "")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the caller gets %v", err)
	}
	if cause := <-ended; !errors.Is(cause, &wire.Error{Kind: wire.KindCancelled}) {
		t.Errorf("the function's context ended with %v", cause)
	}
}

func TestRunsAreApart(t *testing.T) {
	t.Parallel()
	var loads atomic.Int32
	app := freshet.New("test")
	name := freshet.Func(app, "f", func(context.Context, string) (string, error) { return "", nil },
		freshet.Enter(func(context.Context) error { loads.Add(1); return nil }))
	broken := freshet.Func(app, "broken", func(context.Context, string) (string, error) { return "", nil },
		freshet.Enter(func(context.Context) error { return errors.New("no weights") }))
	for range 3 {
		t.Run("", func(t *testing.T) {
			c := freshettest.Run(t, app)
			if _, err := client.Of(c, name).Call(t.Context(), ""); err != nil {
				t.Error(err)
			}
			_, err := client.Of(c, broken).Call(t.Context(), "")
			if e, ok := errors.AsType[*client.StartError](err); !ok || !strings.Contains(e.Error(), "no weights") {
				t.Errorf("a hook that fails: %v", err)
			}
		})
	}
	if loads.Load() != 3 {
		t.Errorf("%d loads", loads.Load())
	}
}
