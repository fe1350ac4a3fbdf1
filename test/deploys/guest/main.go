// Command guest is an app for the tests of deploys: its functions answer with their version.
package main

import (
	"context"
	"os"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// answer is which version answered, and at which attempt.
type answer struct {
	Version string `json:"version"`
	Attempt int    `json:"attempt"`
	Input   int    `json:"input"`
}

func main() {
	app := freshet.New("deploys")
	freshet.Func(app, "tell", tell, freshet.Enter(load), freshet.Concurrency(16), freshet.Scale(1, 2), freshet.ScaledownWindow(time.Hour))
	freshet.Func(app, "hold", hold, freshet.Enter(load), freshet.Concurrency(4), freshet.Scale(1, 1), freshet.ScaledownWindow(time.Hour))
	app.Main()
}

// load fails in a version that does not start.
func load(context.Context) error {
	if os.Getenv("V") == "broken" {
		os.Exit(3)
	}
	return nil
}

func tell(ctx context.Context, input int) (answer, error) {
	return answer{os.Getenv("V"), freshet.Attempt(ctx), input}, nil
}

// hold takes so many milliseconds.
func hold(ctx context.Context, millis int) (answer, error) {
	select {
	case <-time.After(time.Duration(millis) * time.Millisecond):
		return tell(ctx, millis)
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}
