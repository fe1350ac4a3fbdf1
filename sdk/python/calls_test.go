package python_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

const functions = `
import os, sys, threading, time, subprocess
import freshet

def echo(value):
    return value

def nothing():
    return None

def add(a, b=10, *, c=0):
    return {"sum": a + b + c}

def everything(**fields):
    return sorted(fields)

def size(data: bytes):
    return len(data)

def raw(data):
    return data[::-1] if isinstance(data, bytes) else repr(data)

def image():
    return freshet.Body(b"GIF89a", "image/gif")

def fail(what):
    if what == "input":
        raise freshet.InputError("no good")
    if what == "exit":
        sys.exit(3)
    if what == "cause":
        try:
            {}["key"]
        except KeyError as error:
            raise RuntimeError("deep") from error
    if what == "unprintable":
        class Odd(Exception):
            def __str__(self):
                raise ValueError("no")
        raise Odd
    if what == "huge":
        raise ValueError("\x00" * 200000)
    if what == "recursion":
        return fail(what)
    raise ValueError(f"wrong: {what}")

def unencodable(what):
    if what == "object":
        return {"at": object()}
    if what == "nan":
        return float("nan")
    if what == "large":
        return b"x" * (2 << 20)
    if what == "deep":
        deep = []
        for _ in range(100000):
            deep = [deep]
        return deep

def say(lines):
    for line in lines:
        print(line)
    sys.stderr.write("no end")
    sys.stdout.buffer.write(b"bytes\n")
    sys.stdout.close()
    t = threading.Thread(target=lambda: print("from a thread"))
    t.start(); t.join()
    return freshet.current().id

def misuse(what):
    if what == "close":
        os.close(1)
        os.closerange(0, 3)
    elif what == "printf":
        os.write(1, b"printed on the descriptor\n")
    elif what == "fork":
        if os.fork() == 0:
            print("the child says")
            return "child"
        os.wait()
    elif what == "child":
        subprocess.run(["sh", "-c", "echo of a command; cat"], check=True)
    elif what == "leave":
        os._exit(7)
    return "went on"

def sleep(seconds):
    time.sleep(seconds)
    return "slept"

def spin():
    while True:
        pass

def stubborn():
    try:
        print("began")
        time.sleep(30)
    finally:
        print("cleaned up")

def count(n):
    for i in range(n):
        yield i
    if n > 5:
        raise ValueError("too many")

def where():
    return threading.current_thread() is threading.main_thread()
`

func TestInputsBecomeArguments(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		hosts := make(map[string]*host)
		for _, test := range []struct{ entry, contentType, in, outType, out string }{
			{"echo", "application/json", `{"a":[1,null,"é"]}`, "application/json", `{"a":[1,null,"é"]}`},
			{"echo", "application/json", `"text"`, "text/plain; charset=utf-8", `text`},
			{"echo", "text/plain", `text`, "text/plain; charset=utf-8", `text`},
			{"echo", "application/x-www-form-urlencoded", `[1]`, "application/json", `[1]`},
			{"echo", "", `null`, "application/json", `null`},
			{"nothing", "application/json", "", "application/json", "null"},
			{"nothing", "application/json", "{}", "application/json", "null"},
			{"add", "application/json", `{"a":1}`, "application/json", `{"sum":11}`},
			{"add", "application/json", `{"a":1,"b":2,"c":3}`, "application/json", `{"sum":6}`},
			{"add", "application/json", `[1,2]`, "application/json", `{"sum":3}`},
			{"add", "application/json", `7`, "application/json", `{"sum":17}`},
			{"everything", "application/json", `{"b":1,"a":2}`, "application/json", `["a","b"]`},
			{"size", "application/json", `{"a":1}`, "application/json", `7`},
			{"raw", "image/png", "\x01\x02", "application/octet-stream", "\x02\x01"},
			{"image", "", "", "image/gif", "GIF89a"},
		} {
			h := hosts[test.entry]
			if h == nil {
				h = start(t, interpreter, map[string]string{"app.py": functions}).ready("app:"+test.entry, 1)
				hosts[test.entry] = h
			}
			call := h.begin(wire.Call{ContentType: test.contentType}, test.in)
			if got := h.ended(); got.contentType != test.outType || got.body != test.out || got.call != call {
				t.Errorf("%s of %s %q: got %+v", test.entry, test.contentType, test.in, got)
			}
		}
		for _, h := range hosts {
			h.drain()
		}
	})
}

func TestErrorsAreTyped(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		hosts := make(map[string]*host)
		for _, test := range []struct {
			entry, in string
			kind      wire.Kind
			typ, says string
		}{
			{"fail", `"x"`, wire.KindUser, "ValueError", "wrong: x"},
			{"fail", `"input"`, wire.KindInput, "", "no good"},
			{"fail", `"exit"`, wire.KindUser, "SystemExit", "3"},
			{"fail", `"cause"`, wire.KindUser, "RuntimeError", "deep"},
			{"fail", `"unprintable"`, wire.KindUser, "app.fail.<locals>.Odd", "cannot be read"},
			{"fail", `"huge"`, wire.KindUser, "ValueError", "characters left out"},
			{"fail", `"recursion"`, wire.KindUser, "RecursionError", "recursion"},
			{"fail", `{`, wire.KindInput, "", "not JSON"},
			{"nothing", `[1]`, wire.KindInput, "", "nothing() does not take the input"},
			{"add", `{"a":1,"d":2}`, wire.KindInput, "", "'d'"},
			{"add", `{}`, wire.KindInput, "", "'a'"},
			{"echo", ``, wire.KindInput, "", "'value'"},
			{"unencodable", `"object"`, wire.KindUser, "freshet._errors.OutputError", "object is not JSON serializable"},
			{"unencodable", `"nan"`, wire.KindUser, "freshet._errors.OutputError", "JSON"},
			{"unencodable", `"large"`, wire.KindUser, "freshet._errors.OutputError", "2097152 bytes"},
			{"unencodable", `"deep"`, wire.KindUser, "freshet._errors.OutputError", "nested too deeply"},
		} {
			h := hosts[test.entry]
			if h == nil {
				h = start(t, interpreter, map[string]string{"app.py": functions}).ready("app:"+test.entry, 1)
				hosts[test.entry] = h
			}
			got := h.call("", test.in).fault
			if got.Kind != test.kind || got.Type != test.typ || !strings.Contains(got.Message, test.says) {
				t.Errorf("%s of %s: got %+v", test.entry, test.in, got)
			}
			if test.kind == wire.KindUser && !strings.Contains(got.Type, "OutputError") && test.in != `"huge"` {
				if !strings.Contains(got.Traceback, "app.py") || strings.Contains(got.Traceback, "_worker") {
					t.Errorf("%s of %s: traceback %s", test.entry, test.in, got.Traceback)
				}
			}
			if test.in == `"cause"` && !strings.Contains(got.Traceback, "KeyError") {
				t.Errorf("the cause is lost: %s", got.Traceback)
			}
			if again := h.call("nobody", `1`).fault; again.Kind != wire.KindInput || !strings.Contains(again.Message, "no method") {
				t.Errorf("the next call: %+v", again)
			}
		}
		for _, h := range hosts {
			h.drain()
		}
	})
}

func TestWorkersThatCannotServeSayWhy(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		modules := map[string]string{
			"app.py": functions, "needs.py": "import not_there\n", "broken.py": "def f(:\n", "leaves.py": "raise SystemExit(2)\n",
			"hooked.py": "import freshet\n@freshet.enter\ndef load():\n    raise OSError('no weights')\ndef f():\n    pass\n",
			"empty.py":  "class C:\n    def _hidden(self): pass\n",
		}
		for entry, says := range map[string]string{
			"nowhere:f": "No module named 'nowhere'", "needs:f": "No module named 'not_there'", "app:nobody": "has no 'nobody'",
			"broken:f": "invalid syntax", "hooked:f": "no weights", "app": "module:function", "app:functions.x": "has no", "leaves:f": "2",
			"empty:C": "no method", "app:os": "nobody can call",
		} {
			h := start(t, interpreter, modules)
			h.hello(entry, 1)
			var fault wire.Error
			msg := h.next(wire.TypeFailed)
			if err := msg.DecodeMeta(&fault); err != nil || !strings.Contains(fault.Message, says) {
				t.Errorf("%s: got %+v, %v", entry, fault, err)
			}
			if strings.Contains(fault.Traceback, "_worker") || strings.Contains(fault.Traceback, "importlib") {
				t.Errorf("%s: traceback %s", entry, fault.Traceback)
			}
			if err := h.exit(); err == nil {
				t.Errorf("%s: the worker ended as if all were well", entry)
			}
		}
	})
}

func TestPrintsBelongToTheirCall(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		for _, concurrency := range []int{1, 4} {
			h := start(t, interpreter, map[string]string{"app.py": functions}).ready("app:say", concurrency)
			for call := range uint64(3) {
				got := h.call("", fmt.Sprintf(`["a%d","b\nc"]`, call))
				if got.body != fmt.Sprint("call", call+1) {
					t.Errorf("got %+v", got)
				}
				want := []string{fmt.Sprint("a", call), "b", "c", "bytes", "from a thread", "no end"}
				if lines := h.logged(call + 1); !slices.Equal(lines, want) {
					t.Errorf("call %d printed %q, want %q", call+1, lines, want)
				}
			}
			h.drain()
		}
	})
}

func TestMisuseEndsNothingElse(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		for _, concurrency := range []int{1, 4} {
			h := start(t, interpreter, map[string]string{"app.py": functions}).ready("app:misuse", concurrency)
			for _, what := range []string{"printf", "fork", "child", "close"} {
				if got := h.call("", jsonOf(t, what)); got.body != "went on" {
					t.Errorf("%s: got %+v", what, got)
				}
			}
			h.begin(wire.Call{ContentType: "application/json"}, `"leave"`)
			if msg, err := h.read.Read(); err == nil {
				t.Errorf("after _exit came %+v", msg)
			}
			if err := h.exit(); err == nil || !strings.Contains(err.Error(), "exit status 7") {
				t.Errorf("the worker ended with %v", err)
			}
		}
	})
}

func TestCancelInterrupts(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		for _, test := range []struct {
			entry, in   string
			concurrency int
		}{
			{"sleep", "60", 1}, {"spin", "", 1}, {"spin", "", 4}, {"stubborn", "", 1},
		} {
			h := start(t, interpreter, map[string]string{"app.py": functions}).ready("app:"+test.entry, test.concurrency)
			for _, kind := range []wire.Kind{wire.KindTimeout, wire.KindCancelled} {
				call := h.begin(wire.Call{ContentType: "application/json"}, test.in)
				if test.entry == "stubborn" {
					h.line()
				}
				began := time.Now()
				h.send(wire.TypeCancel, call, wire.Cancel{Kind: kind}, "")
				if got := h.ended(); got.call != call || got.fault.Kind != wire.KindCancelled {
					t.Errorf("%s: got %+v", test.entry, got)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("%s took %s to end", test.entry, took)
				}
				if test.entry == "stubborn" && !slices.Equal(h.logged(call), []string{"began", "cleaned up"}) {
					t.Errorf("logged %q", h.logged(call))
				}
			}
			if got := h.call("nobody", "1"); got.fault.Kind != wire.KindInput {
				t.Errorf("the next call: %+v", got)
			}
			h.drain()
		}
	})
}

// TestCancelsAtAnyMoment sends cancels while calls begin and end: each call ends once, and no frame is cut.
func TestCancelsAtAnyMoment(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		for _, concurrency := range []int{1, 8} {
			h := start(t, interpreter, map[string]string{"app.py": functions + `
def busy(n):
    for i in range(n):
        print("x" * 300)
    return n
`}).ready("app:busy", concurrency)
			for i := range 300 {
				call := h.begin(wire.Call{ContentType: "application/json"}, fmt.Sprint(i%40))
				h.send(wire.TypeCancel, call, wire.Cancel{Kind: wire.KindCancelled}, "")
				if got := h.ended(); got.call != call {
					t.Fatalf("got %+v, want the end of call %d", got, call)
				}
			}
			h.drain()
		}
	})
}

func TestGeneratorsYield(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		modules := map[string]string{"app.py": functions + `
import asyncio
async def acount(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i
    if n > 5:
        raise ValueError("too many")
`}
		for _, entry := range []string{"count", "acount"} {
			h := start(t, interpreter, modules).ready("app:"+entry, 1)
			if got := h.call("", "3"); got.body != "[0,1,2]" {
				t.Errorf("got %+v", got)
			}
			h.begin(wire.Call{ContentType: "application/json", Stream: true}, "3")
			for i := range 3 {
				if msg := h.next(wire.TypeYield); string(msg.Payload) != fmt.Sprint(i) {
					t.Errorf("value %d: %s", i, msg.Payload)
				}
			}
			if got := h.ended(); got.fault.Kind != "" || got.body != "" {
				t.Errorf("got %+v", got)
			}
			h.begin(wire.Call{ContentType: "application/json", Stream: true}, "6")
			for range 6 {
				h.next(wire.TypeYield)
			}
			if got := h.ended(); got.fault.Type != "ValueError" {
				t.Errorf("got %+v", got)
			}
			h.drain()
		}
		h := start(t, interpreter, modules).ready("app:echo", 1)
		h.begin(wire.Call{ContentType: "application/json", Stream: true}, `7`)
		if msg := h.next(wire.TypeYield); string(msg.Payload) != "7" {
			t.Errorf("got %s", msg.Payload)
		}
		h.ended()
	})
}

func TestCallsRunBesideEachOther(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		modules := map[string]string{"app.py": functions + `
import asyncio
waiting, gate = 0, None
async def together(n):
    global waiting, gate
    gate = gate or asyncio.Event()
    waiting += 1
    if waiting == n:
        gate.set()
    await gate.wait()
    print(freshet.current().id)
    await asyncio.sleep(0.01)
    print(freshet.current().id)
    return n

barrier = threading.Barrier(64)
def threads(n):
    barrier.wait(30)
    print(freshet.current().id)
    return n
`}
		for _, entry := range []string{"together", "threads"} {
			h := start(t, interpreter, modules).ready("app:"+entry, 64)
			for range 64 {
				h.begin(wire.Call{ContentType: "application/json"}, "64")
			}
			for range 64 {
				got := h.ended()
				if got.body != "64" {
					t.Fatalf("got %+v", got)
				}
				for _, line := range h.logged(got.call) {
					if line != fmt.Sprint("call", got.call) {
						t.Errorf("call %d printed %q", got.call, line)
					}
				}
			}
			h.drain()
		}
		h := start(t, interpreter, modules).ready("app:where", 1)
		if got := h.call("", ""); got.body != "true" {
			t.Errorf("a worker of one call at a time does not run it on the main thread: %+v", got)
		}
	})
}

func TestAsyncCallsAreCancelled(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		h := start(t, interpreter, map[string]string{"app.py": `
import asyncio, time
class C:
    async def wait(self):
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned up")
    def spin(self):
        while True:
            pass
    async def quick(self):
        return "quick"
    async def values(self):
        while True:
            yield 1
`}).ready("app:C", 4)
		for _, method := range []string{"wait", "spin"} {
			call := h.begin(wire.Call{Method: method}, "")
			if got := h.call("quick", ""); got.body != "quick" {
				t.Errorf("got %+v", got)
			}
			h.send(wire.TypeCancel, call, wire.Cancel{Kind: wire.KindTimeout}, "")
			if got := h.ended(); got.call != call || got.fault.Kind != wire.KindCancelled {
				t.Errorf("got %+v", got)
			}
		}
		call := h.begin(wire.Call{Method: "values", Stream: true}, "")
		h.next(wire.TypeYield)
		h.send(wire.TypeCancel, call, wire.Cancel{Kind: wire.KindCancelled}, "")
		for {
			msg, err := h.read.Read()
			if err != nil {
				t.Fatal(err)
			}
			if msg.Type == wire.TypeFailure {
				break
			}
		}
		h.drain()
	})
}

func TestClassesHaveHooksAndMethods(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		for _, async := range []string{"", "async "} {
			h := start(t, interpreter, map[string]string{"app.py": strings.ReplaceAll(`
import freshet, random, uuid, tempfile
class Model:
    def __init__(self):
        self.seen = ["init"]
    ASYNC def enter(self):
        self.seen.append("enter")
    ASYNC def before_freeze(self):
        self.seen.append("freeze")
    ASYNC def after_thaw(self):
        self.seen.append("thaw as " + freshet.worker()["alloc"])
    ASYNC def exit(self):
        print("exit")
    ASYNC def hooks(self):
        return self.seen
    def draw(self):
        return [random.random(), str(uuid.uuid1()), tempfile.mktemp()]
`, "ASYNC ", async)}).ready("app:Model", 1)
			if got := h.call("hooks", ""); got.body != `["init","enter"]` {
				t.Errorf("got %+v", got)
			}
			if got := h.call("", ""); got.fault.Kind != wire.KindInput || !strings.Contains(got.fault.Message, "draw, hooks") {
				t.Errorf("got %+v", got)
			}
			h.thaw()
			if got := h.call("hooks", ""); got.body != `["init","enter","freeze","thaw as second"]` {
				t.Errorf("got %+v", got)
			}
			h.drain()
			if !slices.Equal(h.logged(0), []string{"exit"}) {
				t.Errorf("logged %q", h.logged(0))
			}
		}
	})
}

// pickled makes Python write a pickle as base64.
func pickled(t *testing.T, interpreter, expression string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), interpreter, "-c", "import pickle,base64;print(base64.b64encode(pickle.dumps("+expression+",4)).decode())").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPickles(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		const pickle = "application/vnd.freshet.pickle"
		h := start(t, interpreter, map[string]string{"app.py": functions}).ready("app:echo", 1)
		h.begin(wire.Call{ContentType: pickle}, pickled(t, interpreter, "(({1,2},),{})"))
		if got := h.ended(); got.contentType != pickle || !bytes.Equal([]byte(got.body), []byte(pickled(t, interpreter, "{1,2}"))) {
			t.Errorf("got %+v", got)
		}
		h.begin(wire.Call{ContentType: pickle}, "not a pickle")
		if got := h.ended(); got.fault.Kind != wire.KindInput {
			t.Errorf("got %+v", got)
		}
		h.drain()
		h = start(t, interpreter, map[string]string{"app.py": functions}).ready("app:fail", 1)
		h.begin(wire.Call{ContentType: pickle}, pickled(t, interpreter, "(('x',),{})"))
		if got := h.ended(); got.fault.Type != "ValueError" || got.fault.Exception == "" {
			t.Errorf("got %+v", got)
		}
	})
}

// TestHostileFrames: what is no frame ends the worker, and never with an answer to it.
func TestHostileFrames(t *testing.T) {
	header := func(typ, flags byte, call uint64, body string) string {
		var h []byte
		h = append(h, 0xF5, 0x52, typ, flags)
		h = binary.BigEndian.AppendUint64(h, call)
		h = binary.BigEndian.AppendUint32(h, uint32(len(body)))
		return string(h) + body
	}
	for name, frame := range map[string]string{
		"text":                 "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"unknown type":         header(0x70, 0, 1, "\x00\x00\x00\x00"),
		"unknown flags":        header(2, 2, 1, "\x00\x00\x00\x00"),
		"no meta":              header(2, 0, 1, "\x00"),
		"meta beyond":          header(2, 0, 1, "\x00\x00\xff\x00{}"),
		"meta that is no JSON": header(2, 0, 1, "\x00\x00\x00\x02{]"),
		"meta that is a list":  header(2, 0, 1, "\x00\x00\x00\x02[]"),
		"a second greeting":    header(1, 0, 0, "\x00\x00\x00\x02{}"),
		"a guest's message":    header(0x84, 0, 1, "\x00\x00\x00\x02{}"),
		"large frame":          "\xF5\x52\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, concurrency := range []int{1, 4} {
				h := start(t, pythons(t)[0], map[string]string{"app.py": functions}).ready("app:echo", concurrency)
				if err := h.raw(frame); err != nil {
					t.Fatal(err)
				}
				for {
					msg, err := h.read.Read()
					if err != nil {
						break
					}
					if msg.Type != wire.TypeLog {
						t.Errorf("got message 0x%02x", uint8(msg.Type))
					}
				}
				if err := h.exit(); err == nil {
					t.Error("the worker ended as if all were well")
				}
			}
		})
	}
}

// TestUnits runs the tests in Python under each interpreter.
func TestUnits(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		out, err := exec.CommandContext(t.Context(), interpreter, "-B", "-W", "error", "-m", "unittest", "discover", "-t", ".", "-s", "tests").CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestWheel builds the wheel and installs it into a fresh virtual environment.
func TestWheel(t *testing.T) {
	source, venv := t.TempDir(), t.TempDir()
	for _, name := range []string{"pyproject.toml", "freshet"} {
		if out, err := exec.CommandContext(t.Context(), "cp", "-r", name, source).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, command := range [][]string{
		{pythons(t)[0], "-m", "venv", venv},
		{venv + "/bin/pip", "wheel", "-q", "--no-deps", "-w", source + "/dist", source},
		{"sh", "-c", venv + "/bin/pip install -q " + source + "/dist/freshet-*.whl"},
		{venv + "/bin/python", "-I", "-c", "import freshet, freshet._worker.session, os; assert freshet.Client; assert os.path.exists(os.path.dirname(freshet.__file__) + '/py.typed')"},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
}
