package python_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/python"
	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// pythons are the interpreters that there are: those on the PATH, and those that FRESHET_PYTHONS lists.
func pythons(t testing.TB) []string {
	t.Helper()
	candidates := filepath.SplitList(os.Getenv("FRESHET_PYTHONS"))
	for _, name := range []string{"python3", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13"} {
		if path, err := exec.LookPath(name); err == nil {
			candidates = append(candidates, path)
		}
	}
	var found []string
	seen := make(map[string]bool)
	for _, path := range candidates {
		out, err := exec.CommandContext(t.Context(), path, "-c", "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2])").Output()
		words := strings.Fields(string(out))
		if err != nil || len(words) != 2 || seen[words[1]] || strings.HasPrefix(words[1], "2.") {
			continue // a shim of a version that is not installed
		}
		seen[words[1]] = true
		found = append(found, words[0])
	}
	if len(found) == 0 {
		t.Fatal("there is no python3 on the PATH")
	}
	return found
}

// everyPython runs a test under each interpreter.
func everyPython(t *testing.T, test func(t *testing.T, interpreter string)) {
	t.Helper()
	for _, interpreter := range pythons(t) {
		out, err := exec.CommandContext(t.Context(), interpreter, "-c", "import platform; print(platform.python_version())").Output()
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSpace(string(out)), func(t *testing.T) {
			t.Parallel()
			test(t, interpreter)
		})
	}
}

// host is the other side of a worker: what a supervisor does, without the sandbox.
type host struct {
	t       testing.TB
	write   *wire.Writer
	streams *stream.Opener
	in      io.WriteCloser
	read    *wire.Reader
	stderr  *strings.Builder
	exit    func() error
	last    uint64
	logs    []wire.Message
}

// start runs the real runtime with modules, until the test ends.
func start(t testing.TB, interpreter string, modules map[string]string) *host {
	t.Helper()
	runtime, err := python.Install(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	code := t.TempDir()
	for name, text := range modules {
		path := filepath.Join(code, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	worker := exec.CommandContext(t.Context(), interpreter, filepath.Join(runtime, filepath.Base(python.Worker)), code)
	worker.Dir = code
	in, err := worker.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := worker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, write: wire.NewWriter(in), read: wire.NewReader(out, 0), in: in, stderr: &strings.Builder{}}
	h.streams = stream.NewOpener(h.write)
	worker.Stderr = h.stderr
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	h.exit = sync.OnceValue(func() error {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out) // ends with the worker
		return worker.Wait()
	})
	t.Cleanup(func() {
		_ = in.Close()
		stop := time.AfterFunc(10*time.Second, func() { _ = worker.Process.Kill() })
		defer stop.Stop()
		_ = h.exit()
		if t.Failed() {
			t.Logf("standard error:\n%s", h.stderr)
			for _, line := range h.logs {
				t.Logf("log of call %d: %s", line.Call, line.Payload)
			}
		}
	})
	return h
}

func (h *host) send(typ wire.Type, call uint64, meta any, payload string) {
	h.t.Helper()
	if err := h.write.Write(typ, call, meta, []byte(payload)); err != nil {
		h.t.Fatal(err)
	}
}

// next is the next message that is no log line and of no stream; lines are collected.
func (h *host) next(want wire.Type) wire.Message {
	h.t.Helper()
	for {
		msg, err := h.read.Read()
		if err != nil {
			h.t.Fatalf("%v; want 0x%02x", err, uint8(want))
		}
		if msg.Type == wire.TypeLog {
			h.logs = append(h.logs, msg)
			continue
		}
		if msg.Type != want {
			h.t.Fatalf("got message 0x%02x %s %s, want 0x%02x", uint8(msg.Type), msg.Meta, msg.Payload, uint8(want))
		}
		return msg
	}
}

// hello greets, and does not wait for the load.
func (h *host) hello(entry string, concurrency int) {
	h.t.Helper()
	h.send(wire.TypeHello, 0, wire.Hello{
		MinVersion: 1, Version: wire.Version, Entry: entry, Concurrency: concurrency, MaxPayload: 1 << 20,
		Identity: wire.Identity{App: "test", Function: "f", Alloc: "first"},
	}, "")
	h.next(wire.TypeWelcome)
}

// ready takes the worker to where it serves calls.
func (h *host) ready(entry string, concurrency int) *host {
	h.t.Helper()
	h.hello(entry, concurrency)
	h.next(wire.TypeReady)
	return h
}

// begin sends a call and returns its number.
func (h *host) begin(call wire.Call, input string) uint64 {
	h.t.Helper()
	h.last++
	if call.ID == "" {
		call.ID = fmt.Sprint("call", h.last)
	}
	call.Attempt, call.Deadline = 1, time.Now().Add(time.Minute)
	h.send(wire.TypeCall, h.last, call, input)
	return h.last
}

// answer is what a call gave.
type answer struct {
	call        uint64
	contentType string
	body        string
	fault       wire.Error
}

// ended is the next call's end.
func (h *host) ended() answer {
	h.t.Helper()
	for {
		msg, err := h.read.Read()
		if err != nil {
			h.t.Fatal(err)
		}
		switch msg.Type {
		case wire.TypeLog:
			h.logs = append(h.logs, msg)
		case wire.TypeResult:
			var meta wire.Result
			if err := msg.DecodeMeta(&meta); err != nil {
				h.t.Fatal(err)
			}
			return answer{call: msg.Call, contentType: meta.ContentType, body: string(msg.Payload)}
		case wire.TypeFailure:
			end := answer{call: msg.Call}
			if err := msg.DecodeMeta(&end.fault); err != nil {
				h.t.Fatal(err)
			}
			return end
		default:
			h.t.Fatalf("got message 0x%02x %s", uint8(msg.Type), msg.Meta)
		}
	}
}

// call makes a call of JSON and waits for its end.
func (h *host) call(method, input string) answer {
	h.t.Helper()
	h.begin(wire.Call{Method: method, ContentType: "application/json"}, input)
	return h.ended()
}

// logged are the lines of a call.
func (h *host) logged(call uint64) []string {
	var lines []string
	for _, line := range h.logs {
		if line.Call == call {
			lines = append(lines, string(line.Payload))
		}
	}
	return lines
}

func (h *host) drain() {
	h.t.Helper()
	h.send(wire.TypeDrain, 0, nil, "")
	h.next(wire.TypeDrained)
	if err := h.exit(); err != nil {
		h.t.Errorf("the worker ended with %v", err)
	}
}

func (h *host) thaw() {
	h.t.Helper()
	h.send(wire.TypeFreeze, 0, nil, "")
	h.next(wire.TypeFrozen)
	h.send(wire.TypeThawed, 0, wire.Thawed{
		Identity: wire.Identity{Alloc: "second"}, Restored: true, Time: time.Now(), Entropy: []byte("0123456789abcdef0123456789abcdef"), Concurrency: 1,
	}, "")
	h.next(wire.TypeReady)
}

func jsonOf(t testing.TB, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// line waits for the next log line.
func (h *host) line() {
	h.t.Helper()
	msg, err := h.read.Read()
	if err != nil || msg.Type != wire.TypeLog {
		h.t.Fatalf("got message 0x%02x, %v; want a log line", uint8(msg.Type), err)
	}
	h.logs = append(h.logs, msg)
}

// raw writes bytes that may be no frame.
func (h *host) raw(data string) error {
	_, err := io.WriteString(h.in, data)
	return err
}
