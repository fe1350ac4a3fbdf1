// Command spawn begins calls without waiting for them, and fetches their results later.
package main

import (
	"context"
	"fmt"
	"strings"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
)

func main() {
	app := freshet.New("spawn")
	write := freshet.Func(app, "write", func(_ context.Context, chapter int) (string, error) {
		return fmt.Sprintf("chapter %d", chapter), nil
	}, freshet.Concurrency(8))
	cluster := client.Inside()
	freshet.Func(app, "book", func(ctx context.Context, chapters int) (string, error) {
		var calls []client.FunctionCall[string]
		for i := range chapters {
			// It returns once the cluster has the call for certain. The id may be kept: the result is there for 7 days.
			// .Callback("https://example.com/done") before .Spawn has a web server of yours told when it has ended.
			call, err := client.Of(cluster, write).Spawn(ctx, i+1)
			if err != nil {
				return "", err
			}
			freshet.Logger(ctx).Info("spawned", "call", call.ID())
			calls = append(calls, call)
		}
		// One that is not wanted any more: calls[0].Cancel(ctx)
		var text []string
		for _, result := range client.GetMany(ctx, calls...) {
			if result.Err != nil {
				return "", fmt.Errorf("chapter %d: %w", result.Index+1, result.Err)
			}
			text = append(text, result.Output)
		}
		return strings.Join(text, ", "), nil
	})
	app.Main()
}
