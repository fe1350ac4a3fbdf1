// Command misbehave is an app for the system's tests: functions that do as they are told, and worse.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// loaded is what the enter hook leaves in memory: a snapshot must bring it back.
var loaded atomic.Int64

// input says what a call should do.
type input struct {
	// Do is the verb, With its argument.
	Do   string `json:"do"`
	With string `json:"with"`
}

// output says who answered.
type output struct {
	Said   string `json:"said"`
	Worker string `json:"worker"`
	Loaded int64  `json:"loaded"`
	Random uint64 `json:"random"`
}

func main() {
	app := freshet.New("misbehave")
	window := freshet.ScaledownWindow(2 * time.Second)
	freshet.Func(app, "one", do, freshet.Enter(load), freshet.Timeout(3*time.Second), freshet.Scale(0, 2), window)
	freshet.Func(app, "many", do, freshet.Enter(load), freshet.Concurrency(16), freshet.Timeout(3*time.Second), freshet.Scale(0, 2), window)
	freshet.Func(app, "slow", do, freshet.Enter(load), freshet.Concurrency(16), freshet.Timeout(time.Minute), freshet.Scale(0, 2), window)
	freshet.Func(app, "retried", do, freshet.Retries(2, 10*time.Millisecond, 1), freshet.Scale(0, 1), window)
	freshet.Func(app, "echo", echo, freshet.Enter(load), freshet.Concurrency(64), freshet.Scale(0, 1), freshet.ScaledownWindow(time.Hour))
	freshet.Func(app, "broken", echo, freshet.Enter(refuse), freshet.Scale(0, 1), window)
	app.Main()
}

func load(context.Context) error {
	loaded.Store(time.Now().UnixNano())
	return nil
}

func refuse(context.Context) error { return errors.New("the model file is missing") }

func echo(_ context.Context, body []byte) ([]byte, error) { return body, nil }

func do(ctx context.Context, in input) (output, error) {
	answer := output{Said: in.With, Worker: freshet.Worker(ctx).Alloc, Loaded: loaded.Load(), Random: freshet.Rand().Uint64()}
	switch in.Do {
	case "say":
		return answer, nil
	case "print":
		fmt.Println(in.With)
		fmt.Fprintln(os.Stderr, in.With)
		freshet.Logger(ctx).Info(in.With)
		return answer, nil
	case "fail":
		return answer, fmt.Errorf("as told: %w", &os.PathError{Op: "open", Path: in.With, Err: os.ErrNotExist})
	case "fail-once":
		if freshet.Attempt(ctx) == 1 {
			return answer, errors.New("the first attempt fails")
		}
		return answer, nil
	case "panic":
		panic(in.With)
	case "sleep":
		wait, err := time.ParseDuration(in.With)
		if err != nil {
			return answer, freshet.InputError("with %q: use a duration", in.With)
		}
		select {
		case <-time.After(wait):
			return answer, nil
		case <-ctx.Done():
			return answer, context.Cause(ctx)
		}
	case "loop":
		for { //nolint:staticcheck // deaf to its context: that is the point
		}
	case "exit":
		pause(in.With)
		os.Exit(7)
	case "garbage":
		pause(in.With)
		return answer, garbage()
	}
	return answer, freshet.InputError("do %q: use say, print, fail, fail-once, panic, sleep, loop, exit or garbage", in.Do)
}

// pause waits for the duration, where it is one: what then happens, happens to the calls beside this one too.
func pause(with string) {
	if wait, err := time.ParseDuration(with); err == nil {
		<-time.After(wait)
	}
}

// garbage prints on the protocol's descriptor, which the SDK hides well: it has to be searched for.
func garbage() error {
	for fd := 3; fd < 64; fd++ {
		if _, err := syscall.Write(fd, []byte(strings.Repeat("this is no frame ", 8))); err == nil {
			return nil
		}
	}
	return errors.New("found no descriptor to write to")
}
