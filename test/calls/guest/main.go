// Command guest is an app for the tests of calls.
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
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
	app.Main()
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
