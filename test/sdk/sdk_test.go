// Package sdk tests that apps do in a real cluster what package freshettest says of them, and what the examples promise.
package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/freshettest"
	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/test/clustertest"
	"github.com/freshet-dev/freshet/test/sdk/behaviour"
)

// shared is the cluster of all tests: a start takes seconds.
var shared *clustertest.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "freshet-sdk-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // the next run has another
	shared = &clustertest.Cluster{Bin: os.Getenv("FRESHET_BIN"), Dir: dir, Flags: []string{"--auth"}}
	if err := shared.Up(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := shared.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	return m.Run()
}

// options are those of the shared cluster.
func options() []freshettest.Option {
	return []freshettest.Option{
		freshettest.Freshet(filepath.Join(shared.Bin, "freshet")), freshettest.Gateway(shared.State.Gateway(), shared.State.Token), freshettest.State(shared.Dir),
	}
}

// seen is how something went, by what does not differ from one run to the next.
type seen struct {
	Output any
	Kind   wire.Kind
	Type   string
	Says   string
	Where  bool // the error's stack names the function's source
}

func look(output any, err error) seen {
	s := seen{Output: output}
	failed, ok := errors.AsType[*client.Error](err)
	switch {
	case ok:
		s.Output, s.Kind, s.Type, s.Says = nil, failed.Fault.Kind, failed.Fault.Type, failed.Fault.Message
		s.Where = strings.Contains(failed.Fault.Traceback, "behaviour.go")
	case err != nil:
		s.Output, s.Says = nil, err.Error()
	}
	return s
}

// behaviours are what is compared, each with what is wanted.
func behaviours(p *behaviour.Program) map[string]struct {
	do   func(context.Context, *client.Client) seen
	want seen
} {
	large := bytes.Repeat([]byte("freshet!"), 512<<10) // 4 MiB, over what fits into a message
	type row = struct {
		do   func(context.Context, *client.Client) seen
		want seen
	}
	fails := func(how string, want seen) row {
		return row{func(ctx context.Context, c *client.Client) seen { return look(client.Of(c, p.Fail).Call(ctx, how)) }, want}
	}
	return map[string]row{
		"a value": {func(ctx context.Context, c *client.Client) seen {
			return look(client.Of(c, p.Point).Call(ctx, &behaviour.Point{X: 1, Y: 2, Tags: []string{"ä\n"}}))
		}, seen{Output: &behaviour.Point{X: 2, Y: 1, Tags: []string{"ä\n"}}}},
		"nil": {func(ctx context.Context, c *client.Client) seen { return look(client.Of(c, p.Point).Call(ctx, nil)) }, seen{Output: (*behaviour.Point)(nil)}},
		"text": {func(ctx context.Context, c *client.Client) seen {
			return look(client.Of(c, p.Text).Call(ctx, "straße"))
		}, seen{Output: "STRAßE"}},
		"no text": {func(ctx context.Context, c *client.Client) seen { return look(client.Of(c, p.Text).Call(ctx, "")) }, seen{Output: ""}},
		"a large payload": {func(ctx context.Context, c *client.Client) seen {
			out, err := client.Of(c, p.Bytes).Call(ctx, large)
			return look(bytes.Equal(out, large), err)
		}, seen{Output: true}},
		"a reader": {func(ctx context.Context, c *client.Client) seen {
			response, err := c.Do(ctx, client.Request{Function: p.Reader.Function(), Reader: bytes.NewReader(large)})
			return look(bytes.Equal(response.Body, large), err)
		}, seen{Output: true}},
		"an error":      fails("wrapped", seen{Kind: wire.KindUser, Type: "*fs.PathError", Says: "read it: open /none: file does not exist"}),
		"an input":      fails("input", seen{Kind: wire.KindInput, Says: `"input" is no good`}),
		"a panic":       fails("panic", seen{Kind: wire.KindUser, Type: "panic", Says: "at the disco", Where: true}),
		"an index":      fails("index", seen{Kind: wire.KindUser, Type: "panic", Says: "runtime error: slice bounds out of range [6:5]", Where: true}),
		"after a panic": fails("not", seen{Output: "fine"}),
		"a wrong input": {func(ctx context.Context, c *client.Client) seen {
			return look(client.Named[string, any](c, "behaviour.flaky").Call(ctx, "three"))
		}, seen{Kind: wire.KindInput, Says: "the input is not JSON: invalid character 'h' in literal true (expecting 'r') at byte 2"}},
		"no such function": {func(ctx context.Context, c *client.Client) seen {
			_, err := client.Named[int, int](c, "behaviour.nothing").Call(ctx, 1)
			_, ok := errors.AsType[*client.NotFoundError](err)
			return seen{Output: ok}
		}, seen{Output: true}},
		"no such method": {func(ctx context.Context, c *client.Client) seen {
			_, err := client.Named[int, int](c, "behaviour.turns.nothing").Call(ctx, 1)
			_, ok := errors.AsType[*client.NotFoundError](err)
			return seen{Output: ok}
		}, seen{Output: true}},
		"retries": {func(ctx context.Context, c *client.Client) seen { return look(client.Of(c, p.Flaky).Call(ctx, 3)) }, seen{Output: 3}},
		"too few": {func(ctx context.Context, c *client.Client) seen { return look(client.Of(c, p.Flaky).Call(ctx, 9)) }, seen{Kind: wire.KindUser, Type: "error", Says: "not yet"}},
		"a timeout": {func(ctx context.Context, c *client.Client) seen {
			_, err := client.Of(c, p.Sleep).Call(ctx, 60_000)
			_, ok := errors.AsType[*client.TimeoutError](err)
			return seen{Output: ok, Kind: client.KindOf(err)}
		}, seen{Output: true, Kind: wire.KindTimeout}},
		"a cancelled call": {func(ctx context.Context, c *client.Client) seen {
			call, err := client.Of(c, p.Sleep).Spawn(ctx, 900)
			if err != nil {
				return look(nil, err)
			}
			if err := call.Cancel(ctx); err != nil {
				return look(nil, err)
			}
			_, err = call.Get(ctx)
			_, ok := errors.AsType[*client.CancelledError](err)
			return seen{Output: ok}
		}, seen{Output: true}},
		"a stream that fails": {func(ctx context.Context, c *client.Client) seen {
			var values []int
			for value, err := range client.StreamOf(c, p.Count).Values(ctx, 20) {
				if err != nil {
					s := look(nil, err)
					s.Output = values
					return s
				}
				values = append(values, value)
			}
			return seen{Says: "it did not fail"}
		}, seen{Output: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, Kind: wire.KindUser, Type: "error", Says: "unlucky"}},
		"a stream at once": {func(ctx context.Context, c *client.Client) seen {
			return look(client.StreamOf(c, p.Count).Call(ctx, 3))
		}, seen{Output: []int{0, 1, 2}}},
		"a class": {func(ctx context.Context, c *client.Client) seen { return look(client.Of(c, p.Turns).Call(ctx, "?")) }, seen{Output: "enter small,thaw?"}},
		"a parameter": {func(ctx context.Context, c *client.Client) seen {
			return look(client.Of(c, p.Turns).With(map[string]any{"size": "large"}).Call(ctx, "?"))
		}, seen{Output: "enter large,thaw?"}},
		"a map of a batch": {func(ctx context.Context, c *client.Client) seen {
			var all []int
			for out, err := range client.Of(c, p.Square).Map(ctx, slices.Values([]int{3, 1, 2})) {
				if err != nil {
					return look(nil, err)
				}
				all = append(all, out)
			}
			return seen{Output: all}
		}, seen{Output: []int{9, 1, 4}}},
		"a map with errors": {func(ctx context.Context, c *client.Client) seen {
			var said []string
			for out, err := range client.Of(c, p.Fail).Map(ctx, slices.Values([]string{"", "input", "wrapped", ""})) {
				said = append(said, out+string(client.KindOf(err)))
			}
			return seen{Output: said}
		}, seen{Output: []string{"fine", "input", "user", "fine"}}},
		"a call of others": {
			func(ctx context.Context, c *client.Client) seen { return look(client.Of(c, p.Chain).Call(ctx, "a")) },
			seen{Output: []string{"A", "enter large,thaw!", "0", "1", "2", "*fs.PathError"}},
		},
		"a map of others": {func(ctx context.Context, c *client.Client) seen {
			return look(client.Of(c, p.Sum).Call(ctx, []int{1, 2, 3}))
		}, seen{Output: 14}},
	}
}

// TestTheProcessAndTheClusterAgree runs each behaviour in this process and in a cluster: both do as is wanted.
func TestTheProcessAndTheClusterAgree(t *testing.T) {
	p := behaviour.New()
	clients := map[string]*client.Client{
		"process": freshettest.Run(t, p.App),
		"cluster": freshettest.Cluster(t, p.App, "guest", options()...),
	}
	for name, b := range behaviours(p) {
		for where, c := range clients {
			t.Run(name+"/"+where, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if got := b.do(ctx, c); !reflect.DeepEqual(got, b.want) {
					t.Errorf("got %+v, want %+v", got, b.want)
				}
			})
		}
	}
	t.Run("functions reach nothing but calls", func(t *testing.T) { pries(t, p, clients["cluster"]) })
}

// pries asks for what a function has no business with, though its node's token may do it.
func pries(t *testing.T, p *behaviour.Program, c *client.Client) {
	t.Helper()
	for address, want := range map[string]int{
		"/v1/functions": 403, "/v1/tokens": 403, "/v1/apps": 403, "/v1/functions/behaviour/text/logs": 403, "/v1/calls/../tokens": 403,
		"/v1/calls/%2e%2e/tokens": 403, "/metrics": 403, "/": 403,
		"/v1/functions/behaviour/text/call?namespace=other": 403,
		"/v1/calls/01ARZ3NDEKTSV4RRFFQ69G5FAV/result":       410, // it may have been
	} {
		if got, err := client.Of(c, p.Pry).Call(t.Context(), address); err != nil || got != want {
			t.Errorf("GET %s: %d, %v, want %d", address, got, err, want)
		}
	}
}
