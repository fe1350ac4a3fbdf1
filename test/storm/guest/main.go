// Command guest is the app of the storm: functions that tell whoever counts that they run, and fail as they are told.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// diary is where the functions that are not frozen write what they do, a file a worker.
const diary = "/diary"

// input says what a call should do.
type input struct {
	// N tells the calls apart; the answer says it.
	N int `json:"n"`
	// Millis is how long to take.
	Millis int `json:"ms"`
	// FailUntil is the attempt from which on it does not raise an error, CrashUntil that from which on it does not end its worker.
	FailUntil  int `json:"fail,omitempty"`
	CrashUntil int `json:"crash,omitempty"`
}

// output says which attempt of which worker answers.
type output struct {
	N       int    `json:"n"`
	Attempt int    `json:"attempt"`
	Worker  string `json:"worker"`
}

func main() {
	app := freshet.New("storm")
	freshet.Func(app, "work", work)
	freshet.Func(app, "thawed", work)
	freshet.Generate(app, "count", count)
	app.Main()
}

func work(ctx context.Context, in input) (out output, err error) {
	out = output{N: in.N, Attempt: freshet.Attempt(ctx), Worker: freshet.Worker(ctx).Alloc}
	note(ctx, "begin")
	defer func() {
		if ctx.Err() == nil {
			note(ctx, "end")
		} else {
			note(ctx, "cancelled")
		}
	}()
	select {
	case <-time.After(time.Duration(in.Millis) * time.Millisecond):
	case <-ctx.Done():
		return out, context.Cause(ctx)
	}
	switch {
	case out.Attempt < in.CrashUntil:
		os.Exit(7)
	case out.Attempt < in.FailUntil:
		return out, errors.New("as told")
	}
	return out, nil
}

// count yields the numbers below in.N, with a pause before each.
func count(ctx context.Context, in input) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		note(ctx, "begin")
		defer note(ctx, "end")
		for i := range in.N {
			select {
			case <-time.After(time.Duration(in.Millis) * time.Millisecond):
			case <-ctx.Done():
				return
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}

// note writes a line into the worker's diary; a frozen function has none.
func note(ctx context.Context, what string) {
	file, err := os.OpenFile(filepath.Join(diary, freshet.Worker(ctx).Alloc), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	line, _ := json.Marshal(map[string]any{ // of strings and numbers
		"call": freshet.CallID(ctx), "attempt": freshet.Attempt(ctx), "what": what, "at": time.Now().UnixNano(),
	})
	_, _ = fmt.Fprintf(file, "%s\n", line)
	_ = file.Close()
}
