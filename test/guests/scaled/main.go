// Command scaled is an app for the tests of scaling: functions that take the time they are told.
package main

import (
	"context"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// input says how long a call should take.
type input struct {
	Millis int `json:"ms"`
}

// output says how long it took and which attempt it was.
type output struct {
	Millis  int64  `json:"ms"`
	Attempt int    `json:"attempt"`
	Worker  string `json:"worker"`
}

func main() {
	app := freshet.New("scaled")
	window := freshet.ScaledownWindow(time.Second)
	for _, name := range []string{"a", "b", "c", "d"} {
		freshet.Func(app, name, wait, freshet.Concurrency(4), freshet.Timeout(2*time.Minute), freshet.Scale(0, 4), window)
	}
	for _, name := range []string{"zero0", "zero1", "zero2", "zero3", "zero4", "zero5"} {
		freshet.Func(app, name, wait, freshet.Scale(0, 1), window)
	}
	app.Main()
}

func wait(ctx context.Context, in input) (output, error) {
	began := time.Now()
	select {
	case <-time.After(time.Duration(in.Millis) * time.Millisecond):
	case <-ctx.Done():
		return output{}, context.Cause(ctx)
	}
	return output{Millis: time.Since(began).Milliseconds(), Attempt: freshet.Attempt(ctx), Worker: freshet.Worker(ctx).Alloc}, nil
}
