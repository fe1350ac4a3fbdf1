package guestinit_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/driver/guestinit"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// programs are built once for all tests, the race detector in them.
type programs struct{ init, server string }

var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

func build(t testing.TB) programs {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "guestinit"); built.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-race", "-o", built.dir, "../../cmd/freshet-init", "./testdata/server").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return programs{init: filepath.Join(built.dir, "freshet-init"), server: filepath.Join(built.dir, "server")}
}

// host is the other side of a guest: what a supervisor does.
type host struct {
	t      testing.TB
	write  *wire.Writer
	stdin  io.Closer
	opener *stream.Opener
	// transport is a proxy's, when there is one.
	transport *http.Transport
	control   chan wire.Message
	ended     chan struct{} // the guest closed its output
	failed    error         // of reading, valid after ended
	pid       int
	reap      func() error // waits for the process

	mu    sync.Mutex
	calls map[uint64]chan wire.Message
	last  uint64
	logs  map[uint64][]string
}

func newHost(t testing.TB, stdin io.WriteCloser, stdout io.Reader) *host {
	h := &host{
		t: t, write: wire.NewWriter(stdin), stdin: stdin, control: make(chan wire.Message, 16), ended: make(chan struct{}),
		calls: make(map[uint64]chan wire.Message), logs: make(map[uint64][]string),
	}
	h.opener = stream.NewOpener(h.write)
	go h.read(wire.NewReader(stdout, 0))
	return h
}

// start runs init as an ordinary process until the test ends.
func start(t testing.TB, settings guestinit.Settings, env ...string) *host {
	t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	return startText(t, string(text), env...)
}

func startText(t testing.TB, settings string, env ...string) *host {
	t.Helper()
	cmd := exec.Command(build(t).init)
	cmd.Env = append(append(os.Environ(), "GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0"), append(env, guestinit.SettingsEnv+"="+settings)...)
	errors, log := &strings.Builder{}, &sync.Mutex{}
	cmd.Stderr = writerFunc(func(p []byte) (int, error) {
		log.Lock()
		defer log.Unlock()
		return errors.Write(p)
	})
	cmd.WaitDelay = 5 * time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	h := newHost(t, stdin, stdout)
	h.pid = cmd.Process.Pid
	h.reap = sync.OnceValue(cmd.Wait)
	t.Cleanup(func() {
		_ = stdin.Close()
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
		if err := h.reap(); err != nil && (!timer.Stop() || cmd.ProcessState.ExitCode() == 66) {
			t.Errorf("init: %v", err)
		}
		<-h.ended
		_ = stdout.Close()
		if t.Failed() {
			t.Logf("init's log:\n%s", errors)
		}
	})
	return h
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (h *host) read(in *wire.Reader) {
	defer close(h.ended)
	defer h.opener.Close(errors.New("the guest ended"))
	for {
		msg, err := in.Read()
		if err != nil {
			h.failed = err
			return
		}
		h.dispatch(msg)
	}
}

func (h *host) dispatch(msg wire.Message) {
	if msg.Type.Stream() {
		if err := h.opener.Handle(msg); err != nil {
			h.t.Error(err)
		}
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch msg.Type {
	case wire.TypeLog:
		h.logs[msg.Call] = append(h.logs[msg.Call], string(msg.Payload))
	case wire.TypeResult, wire.TypeFailure:
		if h.calls[msg.Call] == nil {
			h.t.Errorf("an answer to call %d, which does not run", msg.Call)
			return
		}
		h.calls[msg.Call] <- msg
		delete(h.calls, msg.Call)
	default:
		h.control <- msg
	}
}

func (h *host) send(typ wire.Type, call uint64, meta any, payload []byte) {
	h.t.Helper()
	if err := h.write.Write(typ, call, meta, payload); err != nil {
		h.t.Fatal(err)
	}
}

// next is the next message about the whole guest.
func (h *host) next(want wire.Type) wire.Message {
	h.t.Helper()
	timer := time.NewTimer(eventually.Patience)
	defer timer.Stop()
	select {
	case msg := <-h.control:
		if msg.Type != want {
			h.t.Fatalf("got message 0x%02x %s, want 0x%02x", uint8(msg.Type), msg.Meta, uint8(want))
		}
		return msg
	case <-h.ended:
		select {
		case msg := <-h.control:
			h.control <- msg
			return h.next(want)
		default:
		}
		h.t.Fatalf("the guest ended (%v) instead of message 0x%02x", h.failed, uint8(want))
	case <-timer.C:
		h.t.Fatalf("no message 0x%02x came", uint8(want))
	}
	return wire.Message{}
}

func (h *host) hello(maxPayload int64) {
	h.t.Helper()
	h.send(wire.TypeHello, 0, wire.Hello{
		MinVersion: wire.MinVersion, Version: wire.Version, Concurrency: 100, MaxPayload: maxPayload,
		Identity: wire.Identity{App: "app", Function: "fn", Alloc: "first"},
	}, nil)
	h.next(wire.TypeWelcome)
}

// greet takes the guest to where it serves calls.
func (h *host) greet() *host {
	h.t.Helper()
	h.hello(0)
	h.next(wire.TypeReady)
	return h
}

// fault is the next failure of the whole guest.
func (h *host) fault() *wire.Error {
	h.t.Helper()
	msg, fault := h.next(wire.TypeFailed), &wire.Error{}
	if err := msg.DecodeMeta(fault); err != nil {
		h.t.Fatal(err)
	}
	return fault
}

// attempt is a call's description with what tests need not say.
func attempt(id string) wire.Call {
	return wire.Call{ID: id, Attempt: 1, Deadline: time.Unix(1_900_000_000, 0), ContentType: "application/json"}
}

// begin sends a call; its answer comes on the channel.
func (h *host) begin(meta wire.Call, input string) (uint64, <-chan wire.Message) {
	h.t.Helper()
	answer := make(chan wire.Message, 1)
	h.mu.Lock()
	h.last++
	number := h.last
	h.calls[number] = answer
	h.mu.Unlock()
	h.send(wire.TypeCall, number, meta, []byte(input))
	return number, answer
}

// await is a call's answer, or its error.
func (h *host) await(answer <-chan wire.Message) (wire.Result, string, *wire.Error) {
	h.t.Helper()
	timer := time.NewTimer(eventually.Patience)
	defer timer.Stop()
	select {
	case msg := <-answer:
		var result wire.Result
		fault := &wire.Error{}
		if msg.Type == wire.TypeFailure {
			if err := msg.DecodeMeta(fault); err != nil {
				h.t.Fatal(err)
			}
			return result, "", fault
		}
		if err := msg.DecodeMeta(&result); err != nil {
			h.t.Fatal(err)
		}
		return result, string(msg.Payload), nil
	case <-h.ended:
		h.t.Fatalf("the guest ended (%v) with a call", h.failed)
	case <-timer.C:
		h.t.Fatal("a call did not end")
	}
	return wire.Result{}, "", nil
}

func (h *host) call(meta wire.Call, input string) (wire.Result, string, *wire.Error) {
	h.t.Helper()
	_, answer := h.begin(meta, input)
	return h.await(answer)
}

// logged tells whether a line was logged for the call.
func (h *host) logged(call uint64, line string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.logs[call] {
		if l == line {
			return true
		}
	}
	return false
}

// exitCode waits for the guest's end.
func (h *host) exitCode() int {
	h.t.Helper()
	err := h.reap()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return 0
}

// thaw wakes a frozen guest.
func (h *host) thaw(alloc string) {
	h.t.Helper()
	h.send(wire.TypeThawed, 0, wire.Thawed{Identity: wire.Identity{App: "app", Function: "fn", Alloc: alloc}}, nil)
	h.next(wire.TypeReady)
}

func eachTextLine(in io.Reader, give func(string)) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		give(lines.Text())
	}
}

// residentKB is how much memory a process holds.
func residentKB(t testing.TB, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kb := 0
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	return kb
}
