package guestinit_test

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// inline is the largest payload of a message in these tests, so that what is large is not much.
const inline = 64 << 10

// greetLarge is greet by a host that takes large outputs, of a guest that must take large inputs.
func (h *host) greetLarge() *host {
	h.t.Helper()
	h.send(wire.TypeHello, 0, wire.Hello{
		MinVersion: wire.MinVersion, Version: wire.Version, Concurrency: 100, MaxPayload: inline, Payloads: true,
	}, nil)
	h.next(wire.TypeWelcome)
	msg, ready := h.next(wire.TypeReady), wire.Ready{}
	if err := msg.DecodeMeta(&ready); err != nil || !ready.Payloads {
		h.t.Fatalf("the guest says %s, %v", msg.Meta, err)
	}
	return h
}

// large makes a call with a large input and returns what came back by its stream.
func (h *host) large(meta wire.Call, input []byte) (wire.Result, string, []byte, *wire.Error) {
	h.t.Helper()
	meta.Large = int64(len(input))
	number, answer := h.begin(meta, "")
	conn, err := h.opener.OpenFor(h.t.Context(), number)
	if err != nil { // the call has ended without it
		result, body, fault := h.await(answer)
		return result, body, nil, fault
	}
	defer func() { _ = conn.Close() }()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if _, err := conn.Write(input); err == nil {
			_ = conn.CloseWrite()
		}
	}()
	out, err := io.ReadAll(conn)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = conn.Close()
	<-sent
	result, body, fault := h.await(answer)
	return result, body, out, fault
}

func TestLargeBodiesPassThroughCommandsAndServers(t *testing.T) {
	input := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	h := start(t, command("cat")).greetLarge()
	result, body, out, fault := h.large(attempt("whole"), input)
	if fault != nil || !result.Large || body != "" || !bytes.Equal(out, input) || result.ContentType != "text/plain; charset=utf-8" {
		t.Errorf("cat: %+v, %d bytes of %d, %v", result, len(out), len(input), fault)
	}
	if result, body, fault := h.call(attempt("small"), "7"); fault != nil || result.Large || body != "7" {
		t.Errorf("a small one after it: %+v %q, %v", result, body, fault)
	}
	h = start(t, command("wc", "-c")).greetLarge()
	if result, body, _, fault := h.large(attempt("count"), input); fault != nil || result.Large || strings.TrimSpace(body) != strconv.Itoa(len(input)) {
		t.Errorf("wc: %+v %q, %v", result, body, fault)
	}
	h = start(t, command("true")).greetLarge()
	if _, _, _, fault := h.large(attempt("unread"), input); fault != nil {
		t.Errorf("a command that reads nothing: %v", fault)
	}
	h = start(t, command("echo", "{{input}}")).greetLarge()
	if _, _, _, fault := h.large(attempt("argument"), input); fault == nil || fault.Kind != wire.KindInput {
		t.Errorf("a large input in the command line: %v", fault)
	}
	h = start(t, server(t)).greetLarge()
	meta := attempt("server")
	meta.Method = "length"
	if _, body, _, fault := h.large(meta, input); fault != nil || !strings.Contains(body, strconv.Itoa(len(input))) {
		t.Errorf("the server counts %q, %v", body, fault)
	}
}

// TestLargeOutputsAskForAStream when their call has none.
func TestLargeOutputsAskForAStream(t *testing.T) {
	const size = 1_000_000
	h := start(t, command("head", "-c", strconv.Itoa(size), "/dev/zero")).greetLarge()
	number, answer := h.begin(attempt("asks"), "")
	if msg := h.next(wire.TypeLarge); msg.Call != number {
		t.Fatalf("asked for call %d", msg.Call)
	}
	conn, err := h.opener.OpenFor(t.Context(), number)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(conn)
	result, _, fault := h.await(answer)
	if err != nil || fault != nil || !result.Large || len(out) != size {
		t.Errorf("%+v, %d bytes, %v, %v", result, len(out), err, fault)
	}
}
