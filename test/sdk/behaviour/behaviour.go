// Package behaviour is an app with a function for each way that a call can go, for tests that compare those.
package behaviour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"strings"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
)

// Point is an input and output that is JSON.
type Point struct {
	X, Y int
	Tags []string `json:",omitempty"`
}

// Program is the app and the handles of its functions.
type Program struct {
	App    *freshet.App
	Point  freshet.Handle[*Point, *Point]
	Text   freshet.Handle[string, string]
	Bytes  freshet.Handle[[]byte, []byte]
	Reader freshet.Handle[io.Reader, io.Reader]
	Fail   freshet.Handle[string, string]
	Flaky  freshet.Handle[int, int]
	Sleep  freshet.Handle[int, int]
	Count  freshet.StreamHandle[int, int]
	Turns  freshet.Handle[string, string]
	Square freshet.Handle[int, int]
	Sum    freshet.Handle[[]int, int]
	Chain  freshet.Handle[string, []string]
	Pry    freshet.Handle[string, int]
}

// turns is a class that notes what its hooks did.
type turns struct {
	Size string `param:"size" default:"small"`
	made []string
}

func (t *turns) Enter(context.Context) error { t.made = append(t.made, "enter "+t.Size); return nil }

func (t *turns) AfterThaw(context.Context) error { t.made = append(t.made, "thaw"); return nil }

// List is what the hooks did.
func (t *turns) List(_ context.Context, suffix string) (string, error) {
	return strings.Join(t.made, ",") + suffix, nil
}

// New makes the app.
func New() *Program {
	app := freshet.New("behaviour")
	p := &Program{App: app}
	p.Point = freshet.Func(app, "point", func(_ context.Context, in *Point) (*Point, error) {
		if in == nil {
			return nil, nil //nolint:nilnil // nil is what is tried here
		}
		return &Point{in.Y, in.X, in.Tags}, nil
	})
	p.Text = freshet.Func(app, "text", func(_ context.Context, in string) (string, error) { return strings.ToUpper(in), nil })
	p.Bytes = freshet.Func(app, "bytes", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }, freshet.MemoryMB(512))
	p.Reader = freshet.Func(app, "reader", func(_ context.Context, in io.Reader) (io.Reader, error) { return in, nil })
	p.Fail = freshet.Func(app, "fail", fail, freshet.Concurrency(4))
	p.Flaky = freshet.Func(app, "flaky", func(ctx context.Context, good int) (int, error) {
		if freshet.Attempt(ctx) < good {
			return 0, errors.New("not yet")
		}
		return freshet.Attempt(ctx), nil
	}, freshet.Retries(2, 10*time.Millisecond, 1))
	p.Sleep = freshet.Func(app, "sleep", func(ctx context.Context, ms int) (int, error) {
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return ms, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}, freshet.Timeout(time.Second), freshet.Concurrency(8))
	p.Count = freshet.Generate(app, "count", count)
	p.Turns = freshet.Method(freshet.Class[turns](app, "turns"), "list", (*turns).List)
	p.Square = freshet.Batched(app, "square", 16, 20*time.Millisecond, func(_ context.Context, in []int) ([]int, error) {
		out := make([]int, len(in))
		for i, n := range in {
			out[i] = n * n
		}
		return out, nil
	})
	p.calling()
	return p
}

// calling adds the functions that call others.
func (p *Program) calling() {
	inside := client.Inside()
	p.Sum = freshet.Func(p.App, "sum", func(ctx context.Context, in []int) (int, error) {
		sum := 0
		for square, err := range client.Of(inside, p.Square).Map(ctx, func(yield func(int) bool) {
			for _, n := range in {
				if !yield(n) {
					return
				}
			}
		}) {
			if err != nil {
				return 0, err
			}
			sum += square
		}
		return sum, nil
	})
	p.Pry = freshet.Func(p.App, "pry", pry)
	p.Chain = freshet.Func(p.App, "chain", func(ctx context.Context, in string) ([]string, error) {
		text, err := client.Of(inside, p.Text).Call(ctx, in)
		if err != nil {
			return nil, err
		}
		call, err := client.Of(inside, p.Turns).With(map[string]any{"size": "large"}).Spawn(ctx, "!")
		if err != nil {
			return nil, err
		}
		made, err := call.Get(ctx)
		if err != nil {
			return nil, err
		}
		said := []string{text, made}
		for n, err := range client.StreamOf(inside, p.Count).Values(ctx, 3) {
			if err != nil {
				return nil, err
			}
			said = append(said, fmt.Sprint(n))
		}
		_, err = client.Of(inside, p.Fail).Call(ctx, "wrapped")
		failed, ok := errors.AsType[*client.RemoteError](err)
		if !ok {
			return nil, fmt.Errorf("want the other's error, got %w", err)
		}
		return append(said, failed.Fault.Type), nil
	})
}

// pry asks the gateway for an address and returns the status.
func pry(ctx context.Context, address string) (int, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return freshet.DialGateway(ctx) }
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway"+address, nil)
	if err != nil {
		return 0, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

func fail(_ context.Context, how string) (string, error) {
	switch how {
	case "panic":
		panic("at the disco")
	case "index":
		return how[len(how)+len("x"):], nil
	case "input":
		return "", freshet.InputError("%q is no good", how)
	case "wrapped":
		return "", fmt.Errorf("read it: %w", &fs.PathError{Op: "open", Path: "/none", Err: fs.ErrNotExist})
	}
	return "fine", nil
}

// count yields the numbers below its input, and fails at 13.
func count(_ context.Context, to int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
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
}
