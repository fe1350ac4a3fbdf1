// Command snapshots shows the turns of a worker's life, and what to do in each.
package main

import (
	"context"
	"errors"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// Index is loaded once, and is in every worker's memory from its start on.
type Index struct {
	squares  map[int]int
	loadedBy string
	now      string
}

// Enter runs once for each version of the code: all that it leaves in memory is frozen.
func (x *Index) Enter(ctx context.Context) error {
	x.squares = make(map[int]int)
	for n := range 1_000_000 {
		x.squares[n*n] = n
	}
	x.loadedBy = freshet.Worker(ctx).Alloc
	return nil
}

// BeforeFreeze is for what cannot be frozen, such as an open connection.
func (x *Index) BeforeFreeze(context.Context) error { return nil }

// AfterThaw runs in each worker that starts from the frozen memory: what its copies must not share is made anew.
func (x *Index) AfterThaw(ctx context.Context) error {
	x.now = freshet.Worker(ctx).Alloc
	freshet.Logger(ctx).Info("thawed", "at", time.Now(), "dice", freshet.Rand().IntN(6)+1) // math/rand would repeat itself
	return nil
}

// Exit runs when the worker has no more calls.
func (x *Index) Exit(ctx context.Context) error {
	freshet.Logger(ctx).Info("good bye")
	return nil
}

// Root looks a square up.
func (x *Index) Root(_ context.Context, square int) (int, error) {
	root, ok := x.squares[square]
	if !ok || x.loadedBy == "" || x.now == "" {
		return 0, errors.New("it is no square")
	}
	return root, nil
}

func main() {
	app := freshet.New("snapshots")
	freshet.Method(freshet.Class[Index](app, "index", freshet.MemoryMB(512)), "root", (*Index).Root)
	app.Main()
}
