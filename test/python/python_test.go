// Package python tests functions in Python through the whole system: real NATS, Nomad and gVisor, and a Python of Debian's packages.
package python

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// imageReference is the image with Python, which tools/test makes.
func imageReference(t testing.TB) string {
	t.Helper()
	path := os.Getenv("FRESHET_PYTHON_IMAGE")
	if path == "" {
		t.Fatal("FRESHET_PYTHON_IMAGE must name an image's archive: FRESHET_PYTHON_IMAGE=$(tools/python-image python3 python3-minimal python3-numpy)")
	}
	return "docker-archive:" + path
}

const module = `
import os, random, sys, threading, time, uuid
import freshet

class Model:
    def enter(self):
        import ssl
        time.sleep(1)
        self.loaded = str(uuid.uuid4())
        self.woken = 0

    def after_thaw(self):
        self.woken += 1

    def who(self):
        print("asked of", freshet.current().id)
        return {"loaded": self.loaded, "alloc": freshet.worker()["alloc"], "woken": self.woken, "random": random.random(),
                "uuid": str(uuid.uuid4()), "tls": self.tls(), "time": time.time()}

    def tls(self):
        import ssl
        return ssl.RAND_bytes(16).hex()

    def echo(self, value):
        return value

    def sleep(self, seconds):
        time.sleep(seconds)
        return "slept"

    def fail(self, what):
        raise LookupError(what)

    def numbers(self, n):
        for i in range(n):
            yield i

    def object(self):
        return object()

    def misuse(self, what):
        if what == "exit":
            os._exit(7)
        if what == "close":
            sys.stdout.close(); os.closerange(0, 3)
        if what == "fork" and os.fork() == 0:
            return "child"
        if what == "memory":
            kept = []
            while True:
                kept.append(b"x" * (1 << 24))
        return "went on"
`

const asynchronous = `
import asyncio
import freshet

waiting, gate = 0, asyncio.Event()

async def together(n):
    global waiting
    waiting += 1
    if waiting == n:
        gate.set()
    await gate.wait()
    return freshet.worker()["alloc"]
`

// bundle uploads modules and returns the code that names them.
func bundle(t *testing.T, modules map[string]string) string {
	t.Helper()
	var data bytes.Buffer
	out := tar.NewWriter(&data)
	for name, text := range modules {
		if err := out.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data.Bytes())
	digest := hex.EncodeToString(sum[:])
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, cluster.State.Gateway()+"/v1/blobs/"+digest, &data)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode/100 != 2 {
		t.Fatalf("upload the bundle: %s, %v", response.Status, err)
	}
	return "sha256:" + digest
}

// run runs the jobspec to copy, changed as a person would, for a function py.NAME.
func run(t *testing.T, name, entry, code string, changes ...string) string {
	t.Helper()
	text, err := jobspecs.Template("python")
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	all := append([]string{"py.greet", "py." + name, `= "greet"`, `= "` + name + `"`, "app:greet", entry, `window = "60s"`, `window = "1s"`}, changes...)
	for i := 0; i < len(all); i += 2 {
		if !strings.Contains(changed, all[i]) {
			t.Fatalf("the jobspec does not hold %q", all[i])
		}
		changed = strings.ReplaceAll(changed, all[i], all[i+1])
	}
	cluster.RunJob(t, changed, "image="+imageReference(t), "code="+code)
	cluster.Known(t, "py."+name)
	return "py." + name
}

func fault(t *testing.T, err error) wire.Error {
	t.Helper()
	var failed *client.Error
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, want a call's error", err)
	}
	return failed.Fault
}

// who is what a worker says of itself.
type who struct {
	Loaded, Alloc, UUID, TLS string
	Woken                    int
	Random, Time             float64
}

func ask(t *testing.T, function string) who {
	t.Helper()
	response, err := cluster.Call(t, function, "who", "")
	if err != nil {
		t.Fatal(err)
	}
	var answer who
	if err := json.Unmarshal(response.Body, &answer); err != nil {
		t.Fatalf("%s: %v", response.Body, err)
	}
	if answer.Alloc != response.Worker {
		t.Errorf("worker %s says it is %s", response.Worker, answer.Alloc)
	}
	return answer
}

func gone(t *testing.T, function string) {
	t.Helper()
	app, name, _ := strings.Cut(function, ".")
	eventually.True(t, function+" has no worker", func() bool { return len(cluster.Workers(t, app, name)) == 0 })
}

// TestClassThawsAsItself: a copy has what was loaded, an identity of its own, the time, and no number of another copy.
func TestClassThawsAsItself(t *testing.T) {
	function := run(t, "model", "app:Model", bundle(t, map[string]string{"app.py": module}))
	first := ask(t, function)
	gone(t, function)
	second := ask(t, function)
	gone(t, function)
	third := ask(t, function)
	if second.Loaded != first.Loaded || third.Loaded != first.Loaded || second.Alloc == first.Alloc || second.Woken != 1 {
		t.Errorf("got %+v, %+v and %+v: the workers after the first were not thawed from it", first, second, third)
	}
	if second.Random == third.Random || second.Random == first.Random || second.UUID == third.UUID || second.TLS == third.TLS || second.TLS == first.TLS {
		t.Errorf("copies drew the same: %+v, %+v and %+v", first, second, third)
	}
	if off := time.Since(time.UnixMicro(int64(third.Time * 1e6))); off < -time.Second || off > time.Minute {
		t.Errorf("a thawed worker's clock is off by %s", off)
	}
}

func TestErrorsOfPython(t *testing.T) {
	function := run(t, "errors", "app:Model", bundle(t, map[string]string{"app.py": module}), `timeout     = "60s"`, `timeout     = "2s"`)
	call := func(method, input string) (client.Response, error) { return cluster.Call(t, function, method, input) }
	if got, err := call("echo", `{"a":1}`); err != nil || string(got.Body) != `{"a":1}` {
		t.Fatalf("%s, %v", got.Body, err)
	}
	for _, test := range []struct {
		method, input string
		want          wire.Error
	}{
		{"fail", `"no such key"`, wire.Error{Kind: wire.KindUser, Type: "LookupError", Message: "no such key"}},
		{"object", ``, wire.Error{Kind: wire.KindUser, Type: "freshet._errors.OutputError", Message: "cannot be written as JSON"}},
		{"nobody", ``, wire.Error{Kind: wire.KindInput, Message: "has no method 'nobody'"}},
		{"", ``, wire.Error{Kind: wire.KindInput, Message: "several methods"}},
		{"misuse", `"exit"`, wire.Error{Kind: wire.KindCrash, Message: "code 7"}},
		{"sleep", `60`, wire.Error{Kind: wire.KindTimeout, Message: "2s"}},
		{"misuse", `"memory"`, wire.Error{Kind: wire.KindMemory, Message: "memory"}},
	} {
		began := time.Now()
		_, err := call(test.method, test.input)
		t.Logf("%s of %s took %s", test.method, test.input, time.Since(began))
		got := fault(t, err)
		if got.Kind != test.want.Kind || got.Type != test.want.Type || !strings.Contains(got.Message, test.want.Message) {
			t.Errorf("%s of %s: got %+v", test.method, test.input, got)
		}
		if test.method == "fail" && (!strings.Contains(got.Traceback, "app.py") || strings.Contains(got.Traceback, "_worker")) {
			t.Errorf("traceback %s", got.Traceback)
		}
		if after, err := call("echo", `"on"`); err != nil || string(after.Body) != "on" {
			t.Errorf("the call after %s: %s, %v", test.method, after.Body, err)
		}
	}
	before := ask(t, function)
	for _, what := range []string{"close", "fork"} {
		if got, err := call("misuse", `"`+what+`"`); err != nil || string(got.Body) != "went on" {
			t.Errorf("%s: %s, %v", what, got.Body, err)
		}
	}
	if after := ask(t, function); after.Alloc != before.Alloc {
		t.Error("a call that closed its streams or forked took its worker along")
	}
}

func TestACancelledCallLeavesItsWorker(t *testing.T) {
	function := run(t, "cancel", "app:Model", bundle(t, map[string]string{"app.py": module}))
	before := ask(t, function)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := client.New(cluster.State.Gateway())
	id, err := c.Spawn(ctx, client.Request{Function: function, Method: "sleep", Body: []byte("60")})
	if err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the call runs", func() bool { return cluster.Workers(t, "py", "cancel")[0].Busy > 0 })
	if err := c.Cancel(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Result(ctx, id); fault(t, err).Kind != wire.KindCancelled {
		t.Errorf("got %v", err)
	}
	if after := ask(t, function); after.Alloc != before.Alloc {
		t.Error("the call took its worker along")
	}
}

// TestManyAsyncCallsInOneWorker waits for 64 calls that wait for each other, before a freeze and after a thaw.
func TestManyAsyncCallsInOneWorker(t *testing.T) {
	function := run(t, "together", "app:together", bundle(t, map[string]string{"app.py": asynchronous}),
		"concurrency = 1 ", "concurrency = 64 ", "max     = 10", "max     = 1")
	for range 2 {
		var calls sync.WaitGroup
		for range 64 {
			calls.Go(func() {
				if _, err := cluster.Call(t, function, "", "64"); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		gone(t, function)
	}
}

func TestValuesAndLogs(t *testing.T) {
	function := run(t, "values", "app:Model", bundle(t, map[string]string{"app.py": module}))
	if got, err := cluster.Call(t, function, "numbers", "3"); err != nil || string(got.Body) != "[0,1,2]" {
		t.Errorf("%s, %v", got.Body, err)
	}
	response, err := cluster.Call(t, function, "who", "")
	if err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the call's line is in its log", func() bool {
		out, err := cluster.Freshet(t.Context(), "logs", function, "--call", response.Call)
		return err == nil && strings.Contains(out, "asked of "+response.Call)
	})
}

func TestStartsThatFailSayWhy(t *testing.T) {
	code := bundle(t, map[string]string{"app.py": "import not_there\n"})
	function := run(t, "missing", "app:f", code)
	_, err := cluster.Call(t, function, "", "")
	if got := fault(t, err); got.Kind != wire.KindStart || got.Type != "ModuleNotFoundError" || !strings.Contains(got.Message, "not_there") {
		t.Errorf("got %+v", got)
	}
}

// TestDeployOfAFile deploys the example, and again with a changed line.
func TestDeployOfAFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../examples/hello")); err != nil {
		t.Fatal(err)
	}
	deploy := func() {
		began := time.Now()
		if out, err := cluster.Freshet(t.Context(), "deploy", filepath.Join(dir, "app.py"), "--image", imageReference(t)); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Logf("deployed in %s", time.Since(began))
	}
	deploy()
	for _, function := range []string{"hello.greet", "hello.Words"} {
		cluster.Known(t, function)
	}
	if got, err := cluster.Call(t, "hello.greet", "", `"you"`); err != nil || !strings.Contains(string(got.Body), "hello you") {
		t.Errorf("%s, %v", got.Body, err)
	}
	if got, err := cluster.Call(t, "hello.Words", "largest", `{"text":"a b a","most":1}`); err != nil || string(got.Body) != `[{"word":"a","count":2}]` {
		t.Errorf("%s, %v", got.Body, err)
	}
	if out := runSnippet(t); out != "hello you\n2\n1\nb\nhello later\ninput\n" {
		t.Errorf("the document's client printed %q", out)
	}
	path := filepath.Join(dir, "words.py")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte("return len("), []byte("return -len("), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	deploy()
	eventually.True(t, "the changed line runs", func() bool {
		got, err := cluster.Call(t, "hello.Words", "count", `"one two"`)
		return err == nil && string(got.Body) == "-2"
	})
}

// runSnippet runs the document's example of a client, as it stands there.
func runSnippet(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/python.md")
	if err != nil {
		t.Fatal(err)
	}
	_, snippet, _ := strings.Cut(string(text), "```python\n# client\n")
	snippet, _, ok := strings.Cut(snippet, "```")
	if !ok {
		t.Fatal("docs/python.md has no client")
	}
	client := exec.CommandContext(t.Context(), "python3", "-B", "-c", snippet)
	client.Env = append(os.Environ(), "FRESHET_ADDR="+cluster.State.Gateway(), "PYTHONPATH=../../sdk/python")
	out, err := client.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return string(out)
}

// TestNumpy thaws what numpy loaded, and draws other numbers in each copy.
func TestNumpy(t *testing.T) {
	function := run(t, "numpy", "app:draw", bundle(t, map[string]string{"app.py": `
import numpy
def draw():
    return {"random": float(numpy.random.random()), "sum": float(numpy.arange(10.0).sum())}
`}), "memory = 256", "memory = 512")
	seen := make(map[string]bool)
	for range 3 {
		got, err := cluster.Call(t, function, "", "")
		if err != nil || !strings.Contains(string(got.Body), `"sum":45.0`) {
			t.Fatalf("%s, %v", got.Body, err)
		}
		if seen[string(got.Body)] {
			t.Errorf("two workers drew %s", got.Body)
		}
		seen[string(got.Body)] = true
		t.Logf("start %s, run %s", got.Started, got.Run)
		gone(t, function)
	}
}
