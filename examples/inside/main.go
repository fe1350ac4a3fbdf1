// Command inside is functions that call each other: a pipeline of three, each with workers of its own.
package main

import (
	"context"
	"errors"
	"strings"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
)

func main() {
	app := freshet.New("inside")
	clean := freshet.Func(app, "clean", func(_ context.Context, in string) (string, error) {
		if in = strings.TrimSpace(in); in == "" {
			return "", freshet.InputError("there is no text")
		}
		return in, nil
	})
	count := freshet.Func(app, "count", func(_ context.Context, in string) (int, error) { return len(strings.Fields(in)), nil })
	cluster := client.Inside() // reaches functions of the same namespace, and nothing else
	freshet.Func(app, "words", func(ctx context.Context, in string) (int, error) {
		// The other call gets this deadline, and ends when this call is cancelled.
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		text, err := client.Of(cluster, clean).CancelWithContext().Call(ctx, in)
		if _, wrong := errors.AsType[*client.InputError](err); wrong {
			return 0, nil // no text has no words
		}
		if err != nil {
			return 0, err
		}
		// A function of another app, in whatever language, is called by its name: client.Named[string, int](cluster, "app.function").
		return client.Of(cluster, count).Call(ctx, text)
	})
	app.Main()
}
