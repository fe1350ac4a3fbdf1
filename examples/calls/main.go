// Command calls is the app of the first steps: inputs and outputs of each kind, an input that is refused, and a log line.
package main

import (
	"context"
	"slices"
	"strings"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// Order is JSON for callers: {"item":"tea","cups":2}.
type Order struct {
	Item string `json:"item"`
	Cups int    `json:"cups"`
}

// Bill is the answer.
type Bill struct {
	Text  string `json:"text"`
	Cents int    `json:"cents"`
}

func main() {
	app := freshet.New("calls")
	// Any type that encoding/json knows travels as JSON. Eight calls share a worker.
	freshet.Func(app, "order", order, freshet.Concurrency(8))
	// Text is text, and bytes are the caller's bytes as they are.
	freshet.Func(app, "shout", func(_ context.Context, in string) (string, error) { return strings.ToUpper(in), nil })
	freshet.Func(app, "reverse", func(_ context.Context, in []byte) ([]byte, error) { slices.Reverse(in); return in, nil })
	app.Main()
}

func order(ctx context.Context, in Order) (Bill, error) {
	if in.Cups < 1 {
		// The caller gets status 400, and the call is not tried again.
		return Bill{}, freshet.InputError("cups is %d: order 1 or more", in.Cups)
	}
	// `freshet logs` shows the line with the call that wrote it.
	freshet.Logger(ctx).Info("brewing", "item", in.Item, "cups", in.Cups)
	return Bill{Text: strings.Repeat(in.Item+" ", in.Cups), Cents: 250 * in.Cups}, nil
}
