// Command schedule is a function that the cluster calls at certain times. Each tick makes one call, whichever gateway dies meanwhile.
package main

import (
	"context"
	"fmt"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

func main() {
	app := freshet.New("schedule")
	freshet.Func(app, "report", report,
		freshet.Cron("0 2 * * *", "Europe/Berlin"), // the schedule comes, changes and goes with the deploy
		freshet.Retries(5, time.Minute, 2),         // nobody waits who could try again
		freshet.QueueTimeout(6*time.Hour),          // a report of last night is of no use in the evening
		freshet.Priority(20),                       // it gives way to what people wait for
	)
	// A function that people use in office hours: two workers are ready then, and none at night.
	freshet.Func(app, "ask", func(_ context.Context, in string) (string, error) { return in + "? Yes.", nil },
		freshet.Warm("0 8 * * 1-5", "Europe/Berlin", 10*time.Hour, 2))
	app.Main()
}

func report(ctx context.Context, topic string) (string, error) {
	if topic == "" {
		topic = "everything" // a schedule without an input calls with nothing
	}
	// A tick that is tried again has the same id: use it where something must happen once.
	freshet.Logger(ctx).Info("reporting", "call", freshet.CallID(ctx), "attempt", freshet.Attempt(ctx))
	return fmt.Sprintf("report on %s: all is well", topic), nil
}
