package freshettest_test

import (
	"context"
	"fmt"
	"testing"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/freshettest"
)

func newGreetings() (*freshet.App, freshet.Handle[string, string]) {
	app := freshet.New("greetings")
	return app, freshet.Func(app, "hello", func(_ context.Context, name string) (string, error) { return "Hello, " + name, nil })
}

// A test of an app in its own process.
func ExampleRun() {
	_ = func(t *testing.T) {
		app, hello := newGreetings()
		c := freshettest.Run(t, app)
		if got, err := client.Of(c, hello).Call(t.Context(), "Ada"); err != nil || got != "Hello, Ada" {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// The same test in a real cluster. The folder is that of the app's main package.
func ExampleCluster() {
	_ = func(t *testing.T) {
		app, hello := newGreetings()
		c := freshettest.Cluster(t, app, "./cmd/greetings")
		if got, err := client.Of(c, hello).Call(t.Context(), "Ada"); err != nil || got != "Hello, Ada" {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// Where freshet is, and which cluster is meant.
func ExampleOption() {
	options := []freshettest.Option{
		freshettest.Freshet("/usr/local/bin/freshet"),
		freshettest.State("/tmp/freshet-tests"),
		freshettest.Gateway("http://127.0.0.1:8600", "token"),
	}
	fmt.Println(len(options))
	// Output: 3
}

// An app that runs in this process outside of tests.
func ExampleStart() {
	app, hello := newGreetings()
	ctx := context.Background()
	c, stop, err := freshettest.Start(ctx, func(...any) {}, app)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	fmt.Println(client.Of(c, hello).Call(ctx, "Ada"))
	// Output: Hello, Ada <nil>
}
