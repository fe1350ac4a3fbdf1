// Command guest is the app that the benchmarks call: functions that do nothing, so that what is measured is the way there.
package main

import (
	"context"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

func main() {
	app := freshet.New("bench")
	window := freshet.ScaledownWindow(time.Second)
	freshet.Func(app, "warm", echo, freshet.Concurrency(64), freshet.Scale(1, 1))
	freshet.Func(app, "thaw", echo, freshet.Snapshot(true), freshet.Scale(0, 1), window)
	freshet.Func(app, "cold", echo, freshet.Snapshot(false), freshet.Scale(0, 1), window)
	freshet.Func(app, "later", later, freshet.Snapshot(false), freshet.Concurrency(64), freshet.Scale(0, 1))
	app.Main()
}

// later is work that takes its time and no processor.
func later(ctx context.Context, body []byte) ([]byte, error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	return body, nil
}

func echo(_ context.Context, body []byte) ([]byte, error) { return body, nil }
