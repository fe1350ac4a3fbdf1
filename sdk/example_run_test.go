package freshet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/freshettest"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// run runs an app in this process for an example.
func run(app *freshet.App, use func(ctx context.Context, c *client.Client)) {
	ctx := context.Background()
	c, stop, err := freshettest.Start(ctx, func(...any) {}, app)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	use(ctx, c)
}

// handles are what a package with an app exports, for those who call its functions.
type handles struct {
	hello freshet.Handle[string, string]
	words freshet.StreamHandle[string, string]
}

// The smallest app, as it is called.
func Example() {
	app := freshet.New("greetings")
	var by handles
	by.hello = freshet.Func(app, "hello", func(_ context.Context, name string) (string, error) { return "Hello, " + name, nil })
	run(app, func(ctx context.Context, c *client.Client) {
		fmt.Println(client.Of(c, by.hello).Call(ctx, "Ada"))
	})
	fmt.Println(by.hello.Function(), by.hello.Method() == "")
	// Output:
	// Hello, Ada <nil>
	// greetings.hello true
}

// The main function of a program: it serves in a worker, answers a deploy, and otherwise says how to use it.
func ExampleApp_Main() {
	main := func() {
		app := freshet.New("greetings")
		freshet.Func(app, "hello", func(_ context.Context, name string) (string, error) { return "Hello, " + name, nil })
		app.Main()
	}
	_ = main
}

// A function that yields values.
func ExampleGenerate() {
	app := freshet.New("app")
	var by handles
	by.words = freshet.Generate(app, "words", func(_ context.Context, text string) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for word := range strings.FieldsSeq(text) {
				if !yield(word, nil) {
					return
				}
			}
		}
	})
	run(app, func(ctx context.Context, c *client.Client) {
		for word, err := range client.StreamOf(c, by.words).Values(ctx, "one by one") {
			fmt.Println(word, err)
		}
	})
	fmt.Println(by.words.Function())
	// Output:
	// one <nil>
	// by <nil>
	// one <nil>
	// app.words
}

// counter is a class: workers hold one, with the values of its parameters.
type counter struct {
	From int `param:"from" default:"1"`

	next int
}

// Enter runs before the first call.
func (c *counter) Enter(context.Context) error {
	c.next = c.From
	return nil
}

// Next counts.
func (c *counter) Next(context.Context, string) (int, error) {
	c.next++
	return c.next - 1, nil
}

// A class with a parameter: each value that is called has workers of its own.
func ExampleClass() {
	app := freshet.New("app")
	next := freshet.Method(freshet.Class[counter](app, "counter"), "next", (*counter).Next)
	run(app, func(ctx context.Context, c *client.Client) {
		fmt.Println(client.Of(c, next).Call(ctx, ""))
		fmt.Println(client.Of(c, next).Call(ctx, ""))
		fmt.Println(client.Of(c, next).With(map[string]any{"from": 100}).Call(ctx, ""))
	})
	var class *freshet.ClassOf[counter] // what freshet.Class returns
	fmt.Println(class == nil)
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 100 <nil>
	// true
}

// Calls that run together: each has its own output, or error.
func ExampleBatched() {
	app := freshet.New("app")
	half := freshet.Batched(app, "half", 32, time.Millisecond, func(_ context.Context, in []int) ([]int, error) {
		out, errs := make([]int, len(in)), make(freshet.ItemErrors, len(in))
		for i, n := range in {
			if out[i] = n / 2; n%2 != 0 {
				errs[i] = freshet.InputError("%d is odd", n)
			}
		}
		return out, errs
	})
	run(app, func(ctx context.Context, c *client.Client) {
		fmt.Println(client.Of(c, half).Call(ctx, 8))
		_, err := client.Of(c, half).Call(ctx, 7)
		fmt.Println(client.KindOf(err))
	})
	// Output:
	// 4 <nil>
	// input
}

// What a function says that cannot take its input, and what its caller gets for any other error.
func ExampleInputError() {
	app := freshet.New("app")
	root := freshet.Func(app, "open", func(_ context.Context, name string) (string, error) {
		if name == "" {
			return "", freshet.InputError("the name is empty")
		}
		return "", io.ErrUnexpectedEOF
	})
	run(app, func(ctx context.Context, c *client.Client) {
		_, err := client.Of(c, root).Call(ctx, "")
		wrong, ok := errors.AsType[*client.InputError](err)
		fmt.Println(ok, wrong)
		_, err = client.Of(c, root).Call(ctx, "x")
		var failed *freshet.Error
		fmt.Println(errors.As(err, &failed), failed.Kind, failed.Message)
	})
	// Output:
	// true the name is empty
	// true user unexpected EOF
}

// What a function knows of its call.
func ExampleCallID() {
	app := freshet.New("app")
	about := freshet.Func(app, "about", func(ctx context.Context, _ string) (string, error) {
		_, bounded := ctx.Deadline()
		freshet.Logger(ctx).Info("asked") // `freshet logs` shows it with the call
		me := freshet.Worker(ctx)
		dice := freshet.Rand().IntN(6) // never repeats in copies of a snapshot
		return fmt.Sprintln(freshet.CallID(ctx) != "", freshet.Attempt(ctx), bounded, me.Function, freshet.DeployedAs(ctx, "app"), dice < 6), nil
	})
	run(app, func(ctx context.Context, c *client.Client) {
		said, err := client.Of(c, about).Call(ctx, "")
		fmt.Print(said, err)
	})
	// Output:
	// true 1 true about app true
	// <nil>
}

// Outside of a worker there is no gateway to reach this way. Functions use it by client.Inside.
func ExampleDialGateway() {
	_, err := freshet.DialGateway(context.Background())
	fmt.Println(errors.Is(err, freshet.ErrOutside), errors.Is(err, freshet.ErrNoGateway))
	// Output: true false
}

// A type that cannot travel is refused when the app is deployed.
func ExampleApp_Manifest() {
	type config struct{ Callback func() }
	app := freshet.New("app")
	freshet.Func(app, "f", func(context.Context, struct{ Config config }) (string, error) { return "", nil })
	_, err := app.Manifest()
	fmt.Println(strings.Contains(err.Error(), `function f: In.Config.Callback: "func()"`))
	// Output: true
}

// A guest on any pair of streams, as workers and package freshettest have it.
func ExampleApp_Serve() {
	app := freshet.New("app")
	var out bytes.Buffer
	err := app.Serve(context.Background(), strings.NewReader(""), &out, "") // its host has gone at once
	fmt.Println(err, out.Len())
	// Output: <nil> 0
}

// Each option once. Those that scale are in the example above.
func ExampleOption() {
	options := []freshet.Option{
		// The hooks of a worker's life, and whether it is frozen.
		freshet.Enter(hook), freshet.BeforeFreeze(hook), freshet.AfterThaw(hook), freshet.Exit(hook), freshet.Snapshot(true), freshet.SnapshotGPU(),
		// How calls are taken, tried and bounded.
		freshet.Concurrency(16), freshet.Timeout(time.Minute), freshet.StartupTimeout(time.Hour), freshet.QueueTimeout(time.Hour),
		freshet.Retries(3, time.Second, 2), freshet.RetryDelay(time.Minute), freshet.RetryOn(wire.KindUser, wire.KindCrash),
		freshet.Rate(100, 200), freshet.MaxPending(10_000), freshet.MaxRunning(50), freshet.CancelOnDisconnect(),
		// When it is called by itself.
		freshet.Cron("0 2 * * *", "Europe/Berlin"), freshet.Every(time.Hour),
		freshet.Scheduled(spec.CallSchedule{Name: "weekly", Cron: "0 9 * * 1"}, map[string]string{"topic": "rain"}),
		// What a worker has, and how many there are.
		freshet.CPU(500), freshet.MemoryMB(512), freshet.MemoryHardLimit(1024), freshet.CPUHardLimit(), freshet.SharedMemory(64 << 20),
		freshet.Processes(100), freshet.Ulimit("nofile", "1024"), freshet.TargetInflight(8), freshet.Buffer(1), freshet.ScaledownWindow(time.Minute),
		// Where it runs, and under which names.
		freshet.Datacenters("dc1"), freshet.Drain(time.Minute),
		// What the program finds around it.
		freshet.Image("debian:12"), freshet.ImageAuth("", "me", "secret"), freshet.ImagePull(time.Minute, false), freshet.WorkDir("/srv"),
		freshet.User("nobody", "audio"), freshet.Env("MODE", "fast"), freshet.Secrets("db"), freshet.Mount("/data", "/data"),
		freshet.Volume("results", "/results"), freshet.ReadonlyVolume("models", "/models"), freshet.NomadVolume("csi:disk-7", "disk", "/disk"),
		freshet.Scratch("/scratch", 1<<30), freshet.ReadonlyRoot(), freshet.Writable(spec.MediumDisk, 512), freshet.Capabilities("net_bind_service"),
		// What it reaches.
		freshet.Egress("203.0.113.0/24:443"), freshet.DNS("203.0.113.53"), freshet.DNSSearch([]string{"example.org"}, []string{"ndots:2"}),
		freshet.Host("db", "203.0.113.7"), freshet.Hostname("app"), freshet.NetworkMode("bridge"), freshet.Ports("http"),
	}
	app := freshet.New("app")
	freshet.Func(app, "f", func(context.Context, string) (string, error) { return "", nil }, options...)
	manifest, _ := app.Manifest()
	f := manifest.Functions[0]
	fmt.Println(f.Concurrency, f.Timeout, f.Retries.Max, f.Retries.On, f.Resources.MemoryMB, f.Network.Allow)
	// Output: 16 1m0s 3 [user crash] 512 [203.0.113.0/24:443]
}

func hook(context.Context) error { return nil }

// The SDK's own source, which the command line serves to the Go command, and the variable that makes a program a guest.
func Example_source() {
	module, err := freshet.Source.ReadFile("go.mod")
	first, _, _ := strings.Cut(string(module), "\n")
	fmt.Println(first, err, freshet.GuestEnv)
	// Output: module github.com/freshet-dev/freshet/sdk <nil> FRESHET_GUEST
}
