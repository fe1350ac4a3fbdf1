// Command gosearch is a freshet app that searches the documentation and source of the Go standard library. Its enter hook
// builds an index of GOROOT, which takes seconds; workers that thaw have it at once.
package main

import (
	"context"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"

	"github.com/freshet-dev/freshet/examples/gosearch/index"
)

// source is where the workers see the node's GOROOT.
const source = "/usr/local/go"

// loaded is the index of the worker: the enter hook sets it before the first call.
var loaded *index.Index

// query is a call's input.
type query struct {
	// Q is words, or a symbol's name such as strings.Builder.
	Q string `json:"q"`
	// Limit bounds the results, 1 to 100; default 5.
	Limit int `json:"limit"`
}

// result is a call's output.
type result struct {
	Query   string      `json:"query"`
	Symbols int         `json:"symbols"`
	Hits    []index.Hit `json:"hits"`
}

//go:generate go run ./queries

func main() {
	goroot, _ := index.GOROOT(context.Background()) // on the machine that deploys; in a worker there is no go, and it is not used
	app := freshet.New("gosearch")
	freshet.Func(app, "search", search,
		freshet.Enter(load),
		freshet.Mount(goroot, source),
		freshet.Concurrency(16),
		freshet.MemoryMB(768),
		freshet.CPU(500),
		freshet.Timeout(10*time.Second),
		freshet.Scale(0, 2),
		freshet.ScaledownWindow(5*time.Second),
	)
	app.Main()
}

func load(ctx context.Context) error {
	built, err := index.Build(ctx, source)
	if err != nil {
		return err
	}
	loaded = built
	freshet.Logger(ctx).Info("index built", "symbols", built.Len())
	return nil
}

func search(_ context.Context, q query) (result, error) {
	if q.Limit == 0 {
		q.Limit = 5
	}
	if q.Limit < 1 || q.Limit > 100 {
		return result{}, freshet.InputError("limit %d: use 1 to 100", q.Limit)
	}
	hits := loaded.Search(q.Q, q.Limit)
	if hits == nil {
		return result{}, freshet.InputError("q %q: write at least one word or name", q.Q)
	}
	return result{Query: q.Q, Symbols: loaded.Len(), Hits: hits}, nil
}
