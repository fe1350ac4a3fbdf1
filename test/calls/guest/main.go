// Command guest is an app for the tests of calls.
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"strings"
	"sync/atomic"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

func main() {
	app := freshet.New("calls")
	window := freshet.ScaledownWindow(time.Hour)
	freshet.Func(app, "echo", echo, freshet.Concurrency(256), freshet.Scale(0, 1), window)
	freshet.Func(app, "copy", reread, freshet.Concurrency(4), freshet.Scale(0, 1), window)
	freshet.Func(app, "sleep", sleep, freshet.Concurrency(4), freshet.Scale(0, 1), window)
	freshet.Func(app, "poison", poison, freshet.Scale(0, 1), window)
	freshet.Func(app, "flaky", flaky, freshet.Retries(2, 200*time.Millisecond, 2), freshet.Scale(0, 1), window)
	freshet.Generate(app, "count", count, freshet.Concurrency(4), freshet.Scale(0, 1), window)
	freshet.Func(app, "brief", sleep, freshet.Timeout(time.Second), freshet.Retries(1, 700*time.Millisecond, 1), freshet.Scale(0, 1), window)
	freshet.Func(app, "never", echo, freshet.CPU(10_000_000), freshet.Scale(0, 1), window) // no node has room for it
	freshet.Func(app, "slow-start", sleep, freshet.Enter(forever), freshet.StartupTimeout(2*time.Second), freshet.Scale(0, 1), window)
	freshet.Batched(app, "together", 4, 300*time.Millisecond, together, freshet.Timeout(3*time.Second), freshet.Scale(0, 1), window)
	freshet.Batched(app, "patient", 100, 10*time.Minute, together, freshet.Scale(0, 1), window)
	freshet.Batched(app, "wide", 3, 500*time.Millisecond, wide, freshet.Scale(0, 1), window)
	class := freshet.Class[greeter](app, "greeter", freshet.Concurrency(4), freshet.Scale(0, 1), window)
	freshet.Method(class, "greet", (*greeter).greet)
	freshet.Method(class, "count", (*greeter).count)
	freshet.Method(class, "copy", (*greeter).reread)
	app.Main()
}

// forever is a load that does not end.
func forever(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// work is an input of a batch, done what it says after a pause.
type work struct {
	Do     string
	Millis int
}

// together does the work of a batch and says for each how many there were.
func together(ctx context.Context, batch []work) ([]int, error) {
	sizes, each := make([]int, len(batch)), make(freshet.ItemErrors, len(batch))
	failed := false
	for i, one := range batch {
		sizes[i] = len(batch)
		if _, err := sleep(ctx, one.Millis); err != nil {
			return nil, err
		}
		switch one.Do {
		case "die":
			os.Exit(7)
		case "fail":
			each[i], failed = errors.New("as asked"), true
		case "lose":
			return sizes[1:], nil
		}
	}
	if failed {
		return sizes, each
	}
	return sizes, nil
}

// wide gives back what it gets, and behind it how many calls there were.
func wide(_ context.Context, batch [][]byte) ([][]byte, error) {
	for i := range batch {
		batch[i] = append(batch[i], byte('0'+len(batch)))
	}
	return batch, nil
}

// greeter is a class whose workers are made with a greeting.
type greeter struct {
	Greeting string `param:"greeting" default:"hello"`
	Times    int    `param:"times"    default:"1"`

	prefix string
	calls  atomic.Int64
}

func (g *greeter) Enter(context.Context) error {
	g.prefix = strings.Repeat(g.Greeting+" ", g.Times)
	return nil
}

func (g *greeter) greet(_ context.Context, who string) (string, error) {
	g.calls.Add(1)
	return g.prefix + who, nil
}

// count is how many calls to greet came to this worker.
func (g *greeter) count(context.Context, string) (int64, error) { return g.calls.Load(), nil }

func (g *greeter) reread(ctx context.Context, in io.Reader) (io.Reader, error) {
	return reread(ctx, in)
}

func echo(_ context.Context, in []byte) ([]byte, error) { return in, nil }

// reread gives back what it reads, as it comes.
func reread(_ context.Context, in io.Reader) (io.Reader, error) { return in, nil }

// sleep sleeps so many milliseconds.
func sleep(ctx context.Context, millis int) (int, error) {
	select {
	case <-time.After(time.Duration(millis) * time.Millisecond):
		return millis, nil
	case <-ctx.Done():
		freshet.Logger(ctx).Info("cancelled")
		return 0, context.Cause(ctx)
	}
}

// poison ends its worker.
func poison(_ context.Context, die bool) (string, error) {
	if die {
		os.Exit(7)
	}
	return "alive", nil
}

// flaky fails until the attempt that it is given.
func flaky(ctx context.Context, until int) (int, error) {
	if attempt := freshet.Attempt(ctx); attempt < until {
		return 0, errors.New("not yet")
	}
	return freshet.Attempt(ctx), nil
}

// count yields the numbers up to one, with a pause when it is a large one.
func count(ctx context.Context, to int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range to {
			if !yield(i, nil) {
				return
			}
			if to < 1_000_000 {
				continue
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
}
