// Command retries is a function that fails at first. The cluster tries it again, and its caller does not notice.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/wire"
)

var errBusy = errors.New("the other service is busy")

func main() {
	app := freshet.New("retries")
	freshet.Func(app, "fetch", fetch,
		freshet.Retries(4, 100*time.Millisecond, 2),      // after 0.1, 0.2, 0.4 and 0.8 s
		freshet.RetryDelay(time.Minute),                  // but never longer apart than that
		freshet.RetryOn(wire.KindUser, wire.KindTimeout), // what the code said, or that it took too long
		freshet.Timeout(10*time.Second),                  // of each attempt
		freshet.MaxRunning(3),                            // the other service takes three at once
	)
	app.Main()
}

func fetch(ctx context.Context, good int) (string, error) {
	attempt := freshet.Attempt(ctx)
	until, _ := ctx.Deadline()
	freshet.Logger(ctx).Info("fetching", "attempt", attempt, "left", time.Until(until).Round(time.Second))
	if good > 5 {
		return "", freshet.InputError("%d attempts: there are 5", good) // never tried again
	}
	if attempt < good {
		return "", errBusy
	}
	return fmt.Sprintf("fetched in attempt %d", attempt), nil
}
