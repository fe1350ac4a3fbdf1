package freshet

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// newBatchApp has functions that take their calls together.
func newBatchApp(ended chan<- error) *App {
	app := New("test")
	Batched(app, "upper", 8, 0, func(_ context.Context, in []string) ([]string, error) {
		out := make([]string, len(in))
		each := make(ItemErrors, len(in))
		for i, text := range in {
			switch text {
			case "short":
				return out[:1], nil
			case "all":
				return nil, errors.New("nothing works")
			case "panic":
				panic("at the disco")
			case "bad":
				each[i] = InputError("this one is bad")
			default:
				out[i] = strings.ToUpper(text) + "/" + strings.Join(in, "")
			}
		}
		if errors.Join(each...) != nil {
			return out, each
		}
		return out, nil
	})
	Batched(app, "endless", 8, 0, func(ctx context.Context, in []int) ([]int, error) {
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return in, nil
	})
	return app
}

// together sends calls with the inputs as one batch; the calls' numbers count from 1.
func (h *host) together(inputs ...string) {
	h.t.Helper()
	for i, input := range inputs {
		call := attempt("call-" + input)
		call.Batch = &wire.Batch{Number: 7, Size: len(inputs)}
		h.send(wire.TypeCall, uint64(i+1), call, input)
	}
}

func TestBatchAnswersEachOfItsCalls(t *testing.T) {
	for name, test := range map[string]struct {
		inputs []string
		want   []string // an output, or "!" and what the error says
	}{
		"all well":             {[]string{`"a"`, `"b"`}, []string{"A/ab", "B/ab"}},
		"one that is bad":      {[]string{`"a"`, `"bad"`, `"c"`}, []string{"A/abadc", "!this one is bad", "C/abadc"}},
		"one that is no input": {[]string{`"a"`, `{`, `"c"`}, []string{"A/ac", "!not JSON", "C/ac"}},
		"none that is one":     {[]string{`{`, `}`}, []string{"!not JSON", "!not JSON"}},
		"too few outputs":      {[]string{`"a"`, `"short"`}, []string{"!1 outputs for 2 inputs", "!1 outputs for 2 inputs"}},
		"an error for all":     {[]string{`"a"`, `"all"`}, []string{"!nothing works", "!nothing works"}},
		"a panic":              {[]string{`"a"`, `"panic"`}, []string{"!at the disco", "!at the disco"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, newBatchApp(nil)).greet("upper")
			h.together(test.inputs...)
			for i, want := range test.want {
				reason, fails := strings.CutPrefix(want, "!")
				if fails {
					if fault := h.fault(wire.TypeFailure); !strings.Contains(fault.Message, reason) {
						t.Errorf("call %d: %+v, want %s", i, fault, reason)
					}
					continue
				}
				if msg := h.next(wire.TypeResult); string(msg.Payload) != want || msg.Call != uint64(i+1) {
					t.Errorf("call %d got %s, want %s for %d", msg.Call, msg.Payload, want, i+1)
				}
			}
		})
	}
}

func TestBatchRunsOnUntilNobodyWantsIt(t *testing.T) {
	ended := make(chan error, 1)
	h := serve(t, newBatchApp(ended)).greet("endless")
	h.together("1", "2")
	h.send(wire.TypeCancel, 1, wire.Cancel{Kind: wire.KindCancelled}, "")
	select {
	case err := <-ended:
		t.Fatalf("it ended with one of two calls cancelled: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	h.send(wire.TypeCancel, 2, wire.Cancel{Kind: wire.KindTimeout}, "")
	if err := <-ended; !errors.Is(err, &Error{Kind: wire.KindTimeout}) {
		t.Errorf("its context ended by %v", err)
	}
	h.next(wire.TypeResult)
	h.next(wire.TypeResult)
}

func TestBatchOfReadersIsNotDeployed(t *testing.T) {
	app := New("test")
	Batched(app, "in", 2, 0, func(_ context.Context, in []io.Reader) ([]string, error) { return nil, nil })
	Batched(app, "out", 2, 0, func(_ context.Context, in []string) ([]io.ReadCloser, error) { return nil, nil })
	_, err := app.Manifest()
	if err == nil || strings.Count(err.Error(), "[]byte") != 2 {
		t.Errorf("got %v, want an error for each", err)
	}
}

// TestCallWithoutABatchIsOneOfItsOwn for hosts that know of none.
func TestCallWithoutABatchIsOneOfItsOwn(t *testing.T) {
	h := serve(t, newBatchApp(nil)).greet("upper")
	h.send(wire.TypeCall, 3, attempt("a"), `"x"`)
	if msg := h.next(wire.TypeResult); string(msg.Payload) != "X/x" {
		t.Errorf("got %s", msg.Payload)
	}
}
