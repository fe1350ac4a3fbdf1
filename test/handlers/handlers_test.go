// Package handlers tests functions whose programs know nothing of freshet, through the whole system: real NATS, Nomad and gVisor.
package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/jobspecs"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/test/hostile/world"
)

var cluster *world.Cluster

func TestMain(m *testing.M) {
	os.Exit(world.Inside(func() int { return world.Run(m, func(c *world.Cluster) { cluster = c }) }))
}

// jobspec is one to copy, changed as a person would.
func jobspec(t *testing.T, name string, changes ...string) string {
	t.Helper()
	text, err := jobspecs.Template(name)
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(changed, changes[i]) {
			t.Fatalf("jobspec %s does not hold %q", name, changes[i])
		}
		changed = strings.ReplaceAll(changed, changes[i], changes[i+1])
	}
	return changed
}

// soon makes workers go when they are not needed.
var soon = []string{`scaledown_window = "60s"`, `scaledown_window = "1s"`}

func fault(t *testing.T, err error) wire.Error {
	t.Helper()
	var failed *client.Error
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, want a call's error", err)
	}
	return failed.Fault
}

func TestExecJobspec(t *testing.T) {
	cluster.RunJob(t, jobspec(t, "exec", soon...), "image="+world.Image(t, nil, nil))
	cluster.Known(t, "text.sort")
	call := func(t *testing.T, input, want string) client.Response {
		t.Helper()
		response, err := cluster.Call(t, "text.sort", "", input)
		if err != nil || string(response.Body) != want {
			t.Fatalf("%q, %v; want %q", response.Body, err, want)
		}
		return response
	}
	first := call(t, "b\na\nb\n", "a\nb\n")
	if out, err := cluster.Freshet(t.Context(), "call", "text.sort", "z\ny\n"); err != nil || out != "y\nz\n" {
		t.Errorf("freshet call: %q, %v", out, err)
	}
	gone(t, "text", "sort")
	thawed := call(t, "d\nc\n", "c\nd\n")
	if thawed.Worker == first.Worker {
		t.Fatal("the worker did not go")
	}
	if !wasThawed(t, thawed.Worker) {
		t.Error("the second worker started cold")
	}
}

func TestExecErrors(t *testing.T) {
	probe := world.Build(t, "../hostile/probe")
	text := jobspec(t, "exec", "text.sort", "probe.exec", `= "text"`, `= "probe"`, `= "sort"
    "freshet.version"`, `= "exec"
    "freshet.version"`, `command = "sort"`, `command = "/bin/probe"`, `["-u"]`, `["{{method}}"]`, `timeout     = "60s"`, `timeout     = "5s"`)
	cluster.RunJob(t, text, "image="+world.Image(t, nil, map[string]string{"bin/probe": probe}))
	cluster.Known(t, "probe.exec")
	if response, err := cluster.Call(t, "probe.exec", "echo", "hello"); err != nil || strings.TrimSpace(string(response.Body)) != `"hello"` {
		t.Fatalf("%q, %v", response.Body, err)
	}
	t.Run("exit code", func(t *testing.T) {
		_, err := cluster.Call(t, "probe.exec", "exit", "9")
		if got := fault(t, err); got.Kind != wire.KindUser || got.Type != "exit" || !strings.Contains(got.Message, "9") || !strings.Contains(got.Message, "the last words") {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		began := time.Now()
		_, err := cluster.Call(t, "probe.exec", "sleep", "1h")
		if got := fault(t, err); got.Kind != wire.KindTimeout || time.Since(began) > 40*time.Second {
			t.Errorf("got %+v after %s", got, time.Since(began))
		}
	})
	t.Run("concurrency", func(t *testing.T) { together(t, "probe.exec") })
	t.Run("cancel", func(t *testing.T) { cancelled(t, "probe.exec") })
}

// together makes calls that overlap in one worker.
func together(t *testing.T, function string) {
	t.Helper()
	var calls sync.WaitGroup
	var mu sync.Mutex
	workers := make(map[string]int)
	began := time.Now()
	for range 4 {
		calls.Go(func() {
			response, err := cluster.Call(t, function, "sleep", "2s")
			if err != nil {
				t.Errorf("%v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			workers[response.Worker]++
		})
	}
	calls.Wait()
	took := time.Since(began)
	for worker, count := range workers {
		if time.Duration(count)*2*time.Second > took {
			return // they ran side by side
		}
		t.Logf("%s: %d calls", worker, count)
	}
	t.Errorf("no two of four calls of 2s ran side by side, in %s", took)
}

// cancelled cancels a call while it runs.
func cancelled(t *testing.T, function string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := client.New(cluster.State.Gateway())
	id, err := c.Spawn(ctx, client.Request{Function: function, Method: "sleep", Body: []byte("4s")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Cancel(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Result(ctx, id); fault(t, err).Kind != wire.KindCancelled {
		t.Errorf("got %v", err)
	}
	if _, err := cluster.Call(t, function, "echo", "on"); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestHTTPJobspec(t *testing.T) {
	image := world.Image(t, []string{"/bin/probe", "serve"}, map[string]string{"bin/probe": world.Build(t, "../hostile/probe")})
	cluster.RunJob(t, jobspec(t, "http", append([]string{`timeout     = "60s"`, `timeout     = "5s"`}, soon...)...), "image="+image)
	cluster.Known(t, "web.api")
	first, err := cluster.Call(t, "web.api", "echo", "hello")
	if err != nil || strings.TrimSpace(string(first.Body)) != `"hello"` || first.ContentType != "application/json" {
		t.Fatalf("%q (%s), %v", first.Body, first.ContentType, err)
	}
	if out, err := cluster.Freshet(t.Context(), "call", "web.api", `{"q":"x"}`); err != nil || out != `{"q":"x"}`+"\n" && out != `{"q":"x"}` {
		t.Errorf("freshet call: %q, %v", out, err)
	}
	for status, kind := range map[string]wire.Kind{"302": wire.KindUser, "404": wire.KindInput, "429": wire.KindUser, "503": wire.KindUser} {
		_, err := cluster.Call(t, "web.api", "status", status)
		if got := fault(t, err); got.Kind != kind || got.Type != "HTTP "+status || !strings.Contains(got.Message, "as told") {
			t.Errorf("status %s: %+v, want %s", status, got, kind)
		}
	}
	t.Run("timeout", func(t *testing.T) {
		if _, err := cluster.Call(t, "web.api", "sleep", "1h"); fault(t, err).Kind != wire.KindTimeout {
			t.Errorf("got %v", err)
		}
	})
	t.Run("concurrency", func(t *testing.T) { together(t, "web.api") })
	t.Run("cancel", func(t *testing.T) { cancelled(t, "web.api") })
	t.Run("a server that ends", func(t *testing.T) {
		_, err := cluster.Call(t, "web.api", "exit", "9")
		got := fault(t, err)
		if got.Kind != wire.KindCrash || !strings.Contains(got.Message, "code 9") || !strings.Contains(got.Message, "the last words") {
			t.Errorf("got %+v", got)
		}
		response, err := cluster.Call(t, "web.api", "who", "")
		if err != nil {
			t.Fatal(err)
		}
		var who struct{ Loaded string }
		if err := json.Unmarshal(response.Body, &who); err != nil || who.Loaded == "" || !wasThawed(t, response.Worker) {
			t.Errorf("%s, %v, thawed %t", response.Body, err, wasThawed(t, response.Worker))
		}
	})
}

// gone waits until a function has no worker.
func gone(t *testing.T, app, function string) {
	t.Helper()
	eventually.True(t, app+"."+function+" has no worker", func() bool { return len(cluster.Workers(t, app, function)) == 0 })
}

// wasThawed tells how a worker started, once it says so: its first answer may come before its next heartbeat.
func wasThawed(t *testing.T, alloc string) bool {
	t.Helper()
	thawed := false
	eventually.True(t, "worker "+alloc+" is ready", func() bool {
		for _, beat := range cluster.Workers(t, "", "") {
			if beat.Alloc == alloc {
				thawed = beat.Thawed
				return !beat.Ready.IsZero()
			}
		}
		return false
	})
	return thawed
}
