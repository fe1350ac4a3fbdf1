package freshet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// host is the other side of a guest: what a supervisor does, without the sandbox.
type host struct {
	t     *testing.T
	write *wire.Writer
	read  *wire.Reader
	end   func() error
	log   []wire.Message
}

// serve runs the app's guest until the test ends.
func serve(t *testing.T, app *App, arguments ...string) *host {
	t.Helper()
	toGuest, in := io.Pipe()
	fromGuest, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := app.Serve(t.Context(), toGuest, out, strings.Join(arguments, ""))
		ended <- errors.Join(err, out.Close())
	}()
	h := &host{t: t, write: wire.NewWriter(in), read: wire.NewReader(fromGuest, 0)}
	h.end = sync.OnceValue(func() error {
		_ = in.Close()
		go func() { _, _ = io.Copy(io.Discard, fromGuest) }() // ends with the guest
		return <-ended
	})
	t.Cleanup(func() { _ = h.end() })
	return h
}

func (h *host) send(typ wire.Type, call uint64, meta any, payload string) {
	h.t.Helper()
	if err := h.write.Write(typ, call, meta, []byte(payload)); err != nil {
		h.t.Fatal(err)
	}
}

// next is the next message that is no log line; those are collected.
func (h *host) next(want wire.Type) wire.Message {
	h.t.Helper()
	for {
		msg, err := h.read.Read()
		if err != nil {
			h.t.Fatal(err)
		}
		if msg.Type == wire.TypeLog {
			h.log = append(h.log, msg)
			continue
		}
		if msg.Type != want {
			h.t.Fatalf("got message 0x%02x %s %s, want 0x%02x", uint8(msg.Type), msg.Meta, msg.Payload, uint8(want))
		}
		return msg
	}
}

// greet takes the guest to where it serves calls.
func (h *host) greet(entry string) *host {
	h.t.Helper()
	h.send(wire.TypeHello, 0, wire.Hello{MinVersion: 1, Version: 1, Entry: entry, Identity: wire.Identity{Alloc: "first"}}, "")
	h.next(wire.TypeWelcome)
	h.next(wire.TypeReady)
	return h
}

func (h *host) fault(want wire.Type) wire.Error {
	h.t.Helper()
	var fault wire.Error
	msg := h.next(want)
	if err := msg.DecodeMeta(&fault); err != nil {
		h.t.Fatal(err)
	}
	return fault
}

func attempt(id string) wire.Call {
	return wire.Call{ID: id, Attempt: 1, Deadline: time.Now().Add(time.Minute), ContentType: "application/json"}
}

type point struct{ X, Y int }

// newApp has functions that do what the tests need.
func newApp(release <-chan struct{}) *App {
	app := New("test")
	Func(app, "swap", func(_ context.Context, p point) (point, error) { return point{p.Y, p.X}, nil })
	Func(app, "bytes", func(_ context.Context, b []byte) ([]byte, error) { slices.Reverse(b); return b, nil })
	Func(app, "text", func(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil })
	Func(app, "fail", func(_ context.Context, what string) (string, error) {
		switch what {
		case "panic":
			panic("at the disco")
		case "input":
			return "", InputError("%s is no good", what)
		}
		return "", fmt.Errorf("wrapped: %w", io.ErrUnexpectedEOF)
	})
	Func(app, "wait", func(ctx context.Context, s string) (string, error) {
		select {
		case <-release:
			return s, nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	})
	Func(app, "who", func(ctx context.Context, _ string) (string, error) {
		Logger(ctx).Info("asked", "by", CallID(ctx))
		_, timed := ctx.Deadline()
		return fmt.Sprint(Worker(ctx).Alloc, " ", Attempt(ctx), " ", timed, " ", Rand().Uint64()), nil
	})
	return app
}

func TestCallsAreTyped(t *testing.T) {
	for name, test := range map[string]struct{ contentType, in, outType, out string }{
		"swap":  {"application/json", `{"X":1,"Y":2}`, "application/json", `{"X":2,"Y":1}`},
		"bytes": {"application/json", "abc", "application/octet-stream", "cba"},
		"text":  {"text/plain", "abc", "text/plain; charset=utf-8", "ABC"},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, newApp(nil)).greet(name)
			one := attempt("c1")
			one.ContentType = test.contentType
			h.send(wire.TypeCall, 5, one, test.in)
			msg := h.next(wire.TypeResult)
			var result wire.Result
			if err := msg.DecodeMeta(&result); err != nil {
				t.Fatal(err)
			}
			if msg.Call != 5 || string(msg.Payload) != test.out || result.ContentType != test.outType {
				t.Errorf("got call %d %s %q", msg.Call, result.ContentType, msg.Payload)
			}
		})
	}
}

func TestErrorsKeepTheirTypeAndKind(t *testing.T) {
	for in, want := range map[string]wire.Error{
		`"error"`: {Kind: wire.KindUser, Type: "error", Message: "wrapped: unexpected EOF"},
		`"input"`: {Kind: wire.KindInput, Message: "input is no good"},
		`"panic"`: {Kind: wire.KindUser, Type: "panic", Message: "at the disco"},
		`{}`:      {Kind: wire.KindInput, Message: "the input is a JSON object: write a string"},
		`{`:       {Kind: wire.KindInput, Message: "the input is not JSON: unexpected end of JSON input at byte 1"},
	} {
		h := serve(t, newApp(nil)).greet("fail")
		h.send(wire.TypeCall, 1, attempt("c1"), in)
		got := h.fault(wire.TypeFailure)
		if in == `"panic"` && !strings.Contains(got.Traceback, "guest_test.go") {
			t.Errorf("the panic's traceback does not show where: %s", got.Traceback)
		}
		got.Traceback = ""
		if got != want {
			t.Errorf("%s: got %+v, want %+v", in, got, want)
		}
	}
}

// TestCallsRunBesideEachOther also ends one of them early, and drains.
func TestCallsRunBesideEachOther(t *testing.T) {
	const calls = 100
	release := make(chan struct{})
	h := serve(t, newApp(release)).greet("wait")
	for i := range uint64(calls) {
		h.send(wire.TypeCall, i+1, attempt(fmt.Sprint(i)), fmt.Sprint(`"`, i, `"`))
	}
	h.send(wire.TypeCancel, 7, wire.Cancel{Kind: wire.KindTimeout}, "")
	if msg := h.next(wire.TypeFailure); msg.Call != 7 {
		t.Fatalf("call %d ended, want the cancelled one", msg.Call)
	}
	h.send(wire.TypeDrain, 0, nil, "")
	close(release)
	seen := make(map[uint64]bool)
	for range calls - 1 {
		msg := h.next(wire.TypeResult)
		if seen[msg.Call] || string(msg.Payload) != fmt.Sprint(msg.Call-1) {
			t.Fatalf("call %d: %q", msg.Call, msg.Payload)
		}
		seen[msg.Call] = true
	}
	h.next(wire.TypeDrained)
	if err := h.end(); err != nil {
		t.Error(err)
	}
}

func TestFreezeWaitsForCallsAndThawRenewsTheGuest(t *testing.T) {
	var hooks []string
	app := newApp(nil)
	Func(app, "hooked", func(ctx context.Context, _ string) (string, error) { return Worker(ctx).Alloc, nil },
		Enter(func(context.Context) error { hooks = append(hooks, "enter"); return nil }),
		BeforeFreeze(func(context.Context) error { hooks = append(hooks, "freeze"); return nil }),
		AfterThaw(func(context.Context) error { hooks = append(hooks, "thaw"); return nil }))
	h := serve(t, app).greet("hooked")
	h.send(wire.TypeFreeze, 0, nil, "")
	h.next(wire.TypeFrozen)
	h.send(wire.TypeThawed, 0, wire.Thawed{Identity: wire.Identity{Alloc: "second"}, Entropy: []byte("0123456789abcdef0123456789abcdef")}, "")
	h.next(wire.TypeReady)
	h.send(wire.TypeCall, 1, attempt("c1"), `""`)
	if got := string(h.next(wire.TypeResult).Payload); got != "second" {
		t.Errorf("the thawed guest says it is %q", got)
	}
	if err := h.end(); err != nil {
		t.Error(err)
	}
	if want := []string{"enter", "freeze", "thaw"}; !slices.Equal(hooks, want) {
		t.Errorf("hooks %v, want %v", hooks, want)
	}
}

func TestContextKnowsItsCall(t *testing.T) {
	h := serve(t, newApp(nil)).greet("who")
	h.send(wire.TypeCall, 3, attempt("the-call"), `""`)
	if got := string(h.next(wire.TypeResult).Payload); !strings.HasPrefix(got, "first 1 true ") {
		t.Errorf("got %q", got)
	}
	if len(h.log) != 1 || h.log[0].Call != 3 || string(h.log[0].Payload) != "msg=asked by=the-call" {
		t.Errorf("log %+v", h.log)
	}
}

func TestRandomNumbersDoNotRepeatInCopies(t *testing.T) {
	draw := func(entropy string) uint64 { reseed([]byte(entropy)); return Rand().Uint64() }
	first := draw("the same")
	if second := draw("the same"); first == second {
		t.Error("two thaws drew the same number")
	}
}

func TestGuestThatCannotServeSaysWhy(t *testing.T) {
	app := newApp(nil)
	Func(app, "broken", func(context.Context, string) (string, error) { return "", nil },
		Enter(func(context.Context) error { return errors.New("no weights") }))
	h := serve(t, app)
	h.send(wire.TypeHello, 0, wire.Hello{MinVersion: 1, Version: 1, Entry: "broken"}, "")
	h.next(wire.TypeWelcome)
	if got := h.fault(wire.TypeFailed); got.Message != "no weights" {
		t.Errorf("got %+v", got)
	}
	h = serve(t, app)
	h.send(wire.TypeHello, 0, wire.Hello{MinVersion: 1, Version: 1, Entry: "nobody"}, "")
	h.next(wire.TypeWelcome)
	if got := h.fault(wire.TypeFailed); !strings.Contains(got.Message, `"nobody"`) {
		t.Errorf("got %+v", got)
	}
	h = serve(t, app)
	h.send(wire.TypeHello, 0, wire.Hello{MinVersion: 8, Version: 9}, "")
	if got := h.fault(wire.TypeFailed); !strings.Contains(got.Message, "8 to 9") {
		t.Errorf("got %+v", got)
	}
	h = serve(t, app)
	h.send(wire.TypeCall, 1, attempt("c1"), "")
	if err := h.end(); err == nil || !strings.Contains(err.Error(), "before its greeting") {
		t.Errorf("a call before the greeting: %v", err)
	}
}

func TestManifestRefusesWhatCannotBeDeployed(t *testing.T) {
	for name, test := range map[string]struct {
		app  func() *App
		says string
	}{
		"none": {func() *App { return New("a") }, "no functions"},
		"twice": {func() *App {
			app := New("a")
			Func(app, "f", func(context.Context, string) (string, error) { return "", nil })
			Func(app, "f", func(context.Context, string) (string, error) { return "", nil })
			return app
		}, "two of this name"},
		"wrong": {func() *App {
			app := New("a")
			Func(app, "f", func(context.Context, string) (string, error) { return "", nil }, Concurrency(-1), Scale(2, 1))
			return app
		}, "scaling.min"},
	} {
		if _, err := test.app().Manifest(); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	m, err := newApp(nil).Manifest()
	if err != nil || m.App != "test" || len(m.Functions) != 6 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestOptionsAreInTheManifest(t *testing.T) {
	app := New("a")
	Func(app, "f", func(context.Context, string) (string, error) { return "", nil },
		Concurrency(3), CPU(200), MemoryMB(512), Timeout(time.Minute), StartupTimeout(time.Hour), Retries(2, time.Second, 3),
		Snapshot(true), Scale(1, 9), TargetInflight(2), Buffer(4), ScaledownWindow(time.Second), Priority(70),
		Env("A", "B"), Mount("/host", "/guest"))
	m, err := app.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	second := spec.Duration(time.Second)
	want := spec.Function{
		App: "a", Name: "f", Priority: 70, Env: map[string]string{"A": "B"},
		Config: spec.Config{
			Handler: &spec.Handler{Type: spec.HandlerGo, Entry: "f"}, Concurrency: 3, Timeout: 60 * second, StartupTimeout: 3600 * second,
			Retries: spec.Retries{Max: 2, Initial: second, Backoff: 3}, Snapshot: spec.Snapshot{Enabled: true},
			Container: spec.Container{Mounts: []spec.Mount{{Source: "/host", Target: "/guest", Readonly: true}}},
		},
		Resources: spec.Resources{CPU: 200, MemoryMB: 512},
		Scaling:   spec.Scaling{Min: 1, Max: 9, TargetInflight: 2, Buffer: 4, ScaledownWindow: second},
	}
	if got := m.Functions[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
