package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/freshettest"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// library is an app for the examples, with its handles.
type library struct {
	double freshet.Handle[int, int]
	upper  freshet.Handle[string, string]
	count  freshet.StreamHandle[int, int]
	wait   freshet.Handle[string, string]
}

// kept is what a program may keep of its calls.
type kept struct {
	double  client.Function[int, int]
	count   client.Stream[int, int]
	pending []client.FunctionCall[int]
	ended   []client.Result[int]
}

// withLibrary runs the app in this process, in place of a cluster at an address.
func withLibrary(use func(ctx context.Context, c *client.Client, l library)) {
	app := freshet.New("lib")
	var l library
	l.double = freshet.Func(app, "double", func(_ context.Context, n int) (int, error) {
		if n < 0 {
			return 0, errors.New("too small")
		}
		return 2 * n, nil
	})
	l.upper = freshet.Func(app, "upper", func(_ context.Context, in string) (string, error) { return strings.ToUpper(in), nil })
	l.count = freshet.Generate(app, "count", func(_ context.Context, to int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range to {
				if !yield(i, nil) {
					return
				}
			}
		}
	})
	l.wait = freshet.Func(app, "wait", func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
	ctx := context.Background()
	c, stop, err := freshettest.Start(ctx, func(...any) {}, app)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	use(ctx, c, l)
}

// A client for a cluster at an address.
func ExampleNew() {
	options := []client.Option{
		client.Token("a token, where the gateway asks for one"),
		client.Namespace("prod"),
		client.Patience(client.DefaultPatience),
		client.HTTPClient(http.DefaultClient),
	}
	c := client.New("http://127.0.0.1:8600", options...)
	fmt.Println(c != nil)
	// Output: true
}

// Typed calls by a handle or by name.
func ExampleOf() {
	withLibrary(func(ctx context.Context, c *client.Client, l library) {
		fmt.Println(client.Of(c, l.double).Call(ctx, 21))
		fmt.Println(client.Named[int, int](c, "lib.double").Key("order-7").Call(ctx, 4)) // it happens once
		fmt.Println(client.Call[string, string](ctx, c, "lib.upper", "by name"))
		own := kept{double: client.Of(c, l.double).With(nil).Window(8)}
		fmt.Println(own.double.ForEach(ctx, slices.Values([]int{1, 2, 3})))
	})
	// Output:
	// 42 <nil>
	// 8 <nil>
	// BY NAME <nil>
	// <nil>
}

// Many calls, in the order of their inputs or as they end.
func ExampleFunction_Map() {
	withLibrary(func(ctx context.Context, c *client.Client, l library) {
		for out, err := range client.Of(c, l.double).Map(ctx, slices.Values([]int{1, -1, 3})) {
			fmt.Println(out, err)
		}
		sum := 0
		for result, err := range client.Of(c, l.double).MapUnordered(ctx, slices.Values([]int{1, 2, 3})) {
			if err != nil {
				fmt.Println(err)
				return
			}
			sum += result.Output + result.Index
		}
		fmt.Println(sum)
	})
	// Output:
	// 2 <nil>
	// 0 error: too small
	// 6 <nil>
	// 15
}

// Calls whose results are fetched later.
func ExampleFunction_Spawn() {
	withLibrary(func(ctx context.Context, c *client.Client, l library) {
		first, err := client.Of(c, l.double).Spawn(ctx, 1)
		if err != nil {
			fmt.Println(err)
			return
		}
		again := client.Spawned[int](c, first.ID()) // by its id, in any program
		fmt.Println(again.Get(ctx))
		own := kept{pending: []client.FunctionCall[int]{first, again}}
		own.ended = client.GetMany(ctx, own.pending...)
		fmt.Println(len(own.ended), own.ended[1].Output, own.ended[1].Err)
		waits, err := client.Of(c, l.wait).Callback("https://example.com/done").Spawn(ctx, "")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(waits.Cancel(ctx))
		_, err = waits.Get(ctx)
		_, cancelled := errors.AsType[*client.CancelledError](err)
		fmt.Println(cancelled)
	})
	// Output:
	// 2 <nil>
	// 2 2 <nil>
	// <nil>
	// true
}

// A call that ends with its caller's context.
func ExampleFunction_CancelWithContext() {
	withLibrary(func(ctx context.Context, c *client.Client, l library) {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err := client.Of(c, l.wait).CancelWithContext().Call(ctx, "")
		fmt.Println(errors.Is(err, context.DeadlineExceeded))
	})
	// Output: true
}

// The values of a generator.
func ExampleStreamOf() {
	withLibrary(func(ctx context.Context, c *client.Client, l library) {
		for n, err := range client.StreamOf(c, l.count).Values(ctx, 2) {
			fmt.Println(n, err)
		}
		own := kept{count: client.NamedStream[int, int](c, "lib.count")}
		fmt.Println(own.count.Call(ctx, 3))
	})
	// Output:
	// 0 <nil>
	// 1 <nil>
	// [0 1 2] <nil>
}

// Errors say by their type how a call ended.
func ExampleError() {
	explain := func(err error) string {
		var failed *client.Error
		if !errors.As(err, &failed) {
			return "no call's error: the connection's, or the context's"
		}
		if remote, ok := errors.AsType[*client.RemoteError](err); ok {
			return "the code said: " + remote.Fault.Message // with Fault.Type, and Fault.Traceback after a panic
		}
		if missing, ok := errors.AsType[*client.NotFoundError](err); ok {
			return fmt.Sprint("no such function, but ", missing.Near)
		}
		for name, is := range map[string]func() bool{
			"input":   func() bool { _, ok := errors.AsType[*client.InputError](err); return ok },
			"timeout": func() bool { _, ok := errors.AsType[*client.TimeoutError](err); return ok },
			"crash":   func() bool { _, ok := errors.AsType[*client.CrashError](err); return ok },
			"start":   func() bool { _, ok := errors.AsType[*client.StartError](err); return ok },
			"denied":  func() bool { _, ok := errors.AsType[*client.DeniedError](err); return ok },
			"busy":    func() bool { _, ok := errors.AsType[*client.BusyError](err); return ok },
		} {
			if is() {
				return name
			}
		}
		return failed.Error()
	}
	withLibrary(func(ctx context.Context, c *client.Client, l library) {
		_, err := client.Of(c, l.double).Call(ctx, -1)
		fmt.Println(explain(err), client.KindOf(err) == wire.KindUser)
		_, err = client.Call[int, int](ctx, c, "lib.doubel", 1)
		fmt.Println(explain(err))
		_, err = client.Call[string, int](ctx, c, "lib.double", "seven")
		fmt.Println(explain(err))
	})
	// Output:
	// the code said: too small true
	// no such function, but [lib.double]
	// input
}

// A function that calls another, from inside the cluster.
func ExampleInside() {
	app := freshet.New("app")
	double := freshet.Func(app, "double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	inside := client.Inside()
	fourfold := freshet.Func(app, "fourfold", func(ctx context.Context, n int) (int, error) {
		n, err := client.Of(inside, double).Call(ctx, n)
		if err != nil {
			return 0, err
		}
		return client.Of(inside, double).Call(ctx, n)
	})
	ctx := context.Background()
	c, stop, err := freshettest.Start(ctx, func(...any) {}, app)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	fmt.Println(client.Of(c, fourfold).Call(ctx, 3))
	// Output: 12 <nil>
}

// The untyped ways, for inputs and outputs that are bytes, and for what is too large to hold.
func ExampleClient() {
	withLibrary(func(ctx context.Context, c *client.Client, _ library) {
		request := client.Request{Function: "lib.upper", Body: []byte("bytes"), ContentType: "text/plain"}.With(nil)
		var response client.Response
		response, err := c.Do(ctx, request)
		fmt.Println(string(response.Body), response.Attempt, err)

		_, out, err := c.Open(ctx, request)
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _ := io.ReadAll(out)
		fmt.Println(string(text), out.Close())

		call, err := c.Spawn(ctx, request)
		if err != nil {
			fmt.Println(err)
			return
		}
		response, err = c.Result(ctx, call)
		fmt.Println(string(response.Body), err)
		_, out, err = c.OpenResult(ctx, call)
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _ = io.ReadAll(out)
		fmt.Println(string(text), out.Close(), c.Cancel(ctx, call) != nil) // it has ended

		for value, err := range c.Stream(ctx, client.Request{Function: "lib.count", Body: []byte("2")}) {
			fmt.Println(string(value), err)
		}
		lines := slices.Values(bytes.Split([]byte("1 2"), []byte(" ")))
		var items []client.Item
		for item, err := range c.Map(ctx, client.Request{Function: "lib.double"}, lines, 8) {
			items = append(items, item)
			fmt.Println(string(item.Response.Body), err)
		}
		for range c.MapUnordered(ctx, client.Request{Function: "lib.double"}, lines, 8) {
			items = append(items, client.Item{})
		}
		fmt.Println(len(items))
	})
	// Output:
	// BYTES 1 <nil>
	// BYTES <nil>
	// BYTES <nil>
	// BYTES <nil> true
	// 0 <nil>
	// 1 <nil>
	// 2 <nil>
	// 4 <nil>
	// 4
}
