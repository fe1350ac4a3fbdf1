package python_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

const apps = `
import asyncio
import json

class Asgi:
    def __init__(self):
        self.seen = []
        self.gone = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                self.seen.append(event["type"])
                await send({"type": event["type"] + ".complete"})
                if event["type"] == "lifespan.shutdown":
                    print("shut down")
                    return
        if scope["type"] == "websocket":
            return await self.talk(scope, receive, send)
        path = scope["path"]
        if path == "/fail":
            raise ValueError("the app failed")
        if path == "/silent":
            return
        if path == "/status":
            return await self.answer(send, int(scope["query_string"]), b"as told")
        if path == "/seen":
            return await self.answer(send, 200, json.dumps(self.seen).encode())
        if path == "/events":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
            for i in range(3):
                await send({"type": "http.response.body", "body": b"data: %d\n\n" % i, "more_body": True})
                await asyncio.sleep(0)
            return await send({"type": "http.response.body"})
        if path == "/forever":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"on", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.set()
            return
        if path == "/gone":
            await self.gone.wait()
            return await self.answer(send, 200, b"gone")
        body, more = b"", True
        while more:
            event = await receive()
            body += event["body"]
            more = event["more_body"]
        headers = dict(scope["headers"])
        tell = {"path": path, "query": scope["query_string"].decode(), "method": scope["method"], "size": len(body),
                "type": headers.get(b"content-type", b"").decode(), "call": headers.get(b"freshet-call", b"").decode()}
        if path == "/echo":
            return await self.answer(send, 200, body)
        await self.answer(send, 200, json.dumps(tell).encode(), [(b"content-type", b"application/json"), (b"x-two", b"1"), (b"x-two", b"2")])

    async def answer(self, send, status, body, headers=()):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    async def talk(self, scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/refused":
            return await send({"type": "websocket.close"})
        await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                print("disconnected with", event["code"])
                return
            if event.get("text") == "bye":
                return await send({"type": "websocket.close", "code": 4000, "reason": "as asked"})
            await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})

asgi = Asgi()

async def plain(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"plain"})

def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ValueError("the app failed")
    if path == "/late":
        def late():
            yield b"some"
            raise ValueError("too late")
        start_response("200 OK", [])
        return late()
    if path == "/status":
        start_response(environ["QUERY_STRING"] + " As Told", [])
        return [b"as told"]
    if path == "/lines":
        start_response("200 OK", [])
        return (line.upper() for line in environ["wsgi.input"])
    body = environ["wsgi.input"].read()
    if path == "/echo":
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    write = start_response("200 OK", [("Content-Type", "application/json"), ("X-Two", "1"), ("X-Two", "2")])
    write(b"")
    return [json.dumps({"path": path, "query": environ["QUERY_STRING"], "method": environ["REQUEST_METHOD"], "size": len(body),
                        "type": environ.get("CONTENT_TYPE", ""), "call": environ.get("HTTP_FRESHET_CALL", "")}).encode()]
`

// web is a host whose streams are an HTTP client's connections.
type web struct {
	*host
	client *http.Client
	others chan wire.Message
	ended  sync.WaitGroup
}

func serveWeb(t *testing.T, interpreter, entry string) *web {
	t.Helper()
	h := start(t, interpreter, map[string]string{"app.py": apps}).ready(entry, 8)
	w := &web{host: h, others: make(chan wire.Message, 100)}
	w.client = &http.Client{Transport: &http.Transport{
		DisableCompression: true,
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return h.streams.Open(ctx) },
	}}
	w.ended.Go(func() {
		defer close(w.others)
		for {
			msg, err := h.read.Read()
			if err != nil {
				h.streams.Close(err)
				return
			}
			if !msg.Type.Stream() {
				w.others <- msg
			} else if err := h.streams.Handle(msg); err != nil {
				t.Errorf("the worker broke the protocol: %v", err)
			}
		}
	})
	t.Cleanup(func() {
		_ = h.in.Close()
		w.ended.Wait()
	})
	return w
}

func (w *web) do(method, path, body string, header ...string) (*http.Response, string) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, "http://app.example"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := w.client.Do(request)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response, string(data)
}

// message is the next message that is no log line.
func (w *web) message() wire.Message {
	w.t.Helper()
	for msg := range w.others {
		if msg.Type == wire.TypeLog {
			w.logs = append(w.logs, msg)
			continue
		}
		return msg
	}
	w.t.Fatal("the worker ended")
	return wire.Message{}
}

func TestWebAppsAnswerRequests(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		for _, entry := range []string{"app:asgi", "app:wsgi"} {
			w := serveWeb(t, interpreter, entry)
			response, body := w.do("PUT", "/a%20b?q=1", "hello", "Content-Type", "text/plain")
			if want := `{"path": "/a b", "query": "q=1", "method": "PUT", "size": 5, "type": "text/plain", "call": ""}`; body != want {
				t.Errorf("%s: got %s", entry, body)
			}
			if two := response.Header["X-Two"]; len(two) != 2 || response.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: header %v", entry, response.Header)
			}
			large := strings.Repeat("0123456789abcdef", 1<<16)
			if _, body := w.do("POST", "/echo", large); body != large {
				t.Errorf("%s: %d bytes of %d came back", entry, len(body), len(large))
			}
			if response, body := w.do("HEAD", "/a", ""); body != "" || response.StatusCode != 200 {
				t.Errorf("%s: HEAD %d %q", entry, response.StatusCode, body)
			}
			if response, body := w.do("GET", "/status?418", ""); response.StatusCode != 418 || body != "as told" {
				t.Errorf("%s: %d %q", entry, response.StatusCode, body)
			}
			if response, body := w.do("GET", "/fail", ""); response.StatusCode != 500 || strings.Contains(body, "ValueError") {
				t.Errorf("%s: %d %q", entry, response.StatusCode, body)
			}
			if _, body := w.do("POST", "/echo", "after"); body != "after" {
				t.Errorf("%s: %q after a failure", entry, body)
			}
			var calls sync.WaitGroup
			for i := range 16 {
				calls.Go(func() {
					if _, body := w.do("POST", "/echo", fmt.Sprint(i)); body != fmt.Sprint(i) {
						t.Errorf("%s: got %q, want %d", entry, body, i)
					}
				})
			}
			calls.Wait()
		}
		w := serveWeb(t, interpreter, "app:plain")
		if _, body := w.do("GET", "/", ""); body != "plain" {
			t.Errorf("got %q", body)
		}
		w = serveWeb(t, interpreter, "app:wsgi")
		if _, body := w.do("POST", "/lines", "a\nb\n"); body != "A\nB\n" {
			t.Errorf("got %q", body)
		}
	})
}

func TestWebAppsStream(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		w := serveWeb(t, interpreter, "app:asgi")
		if _, body := w.do("GET", "/events", ""); body != "data: 0\n\ndata: 1\n\ndata: 2\n\n" {
			t.Errorf("got %q", body)
		}
		ctx, cancel := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://app/forever", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := w.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(response.Body, make([]byte, 2)); err != nil {
			t.Error(err)
		}
		cancel()
		_ = response.Body.Close()
		if _, body := w.do("GET", "/gone", ""); body != "gone" {
			t.Errorf("got %q", body)
		}
		w.send(wire.TypeFreeze, 0, nil, "")
		if msg := w.message(); msg.Type != wire.TypeFrozen {
			t.Fatalf("got 0x%02x", uint8(msg.Type))
		}
		w.send(wire.TypeThawed, 0, wire.Thawed{Restored: true, Entropy: []byte("x")}, "")
		w.message()
		if _, body := w.do("GET", "/seen", ""); body != `["lifespan.startup"]` {
			t.Errorf("got %q", body)
		}
		w.send(wire.TypeDrain, 0, nil, "")
		if msg := w.message(); msg.Type != wire.TypeDrained || len(w.logged(0)) == 0 {
			t.Errorf("got 0x%02x, logged %q", uint8(msg.Type), w.logged(0))
		}
		w = serveWeb(t, interpreter, "app:wsgi")
		request, err = http.NewRequestWithContext(t.Context(), http.MethodGet, "http://app/late", nil)
		if err != nil {
			t.Fatal(err)
		}
		if response, err = w.client.Do(request); err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(response.Body); err == nil {
			t.Errorf("an answer that was cut short looks whole: %q", data)
		}
		_ = response.Body.Close()
	})
}

func TestCallsOfWebApps(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		for _, entry := range []string{"app:asgi", "app:wsgi"} {
			h := start(t, interpreter, map[string]string{"app.py": apps}).ready(entry, 8)
			if got := h.call("do", `{}`); !strings.Contains(got.body, `"path": "/do"`) || !strings.Contains(got.body, `"call": "call1"`) || got.contentType != "application/json" {
				t.Errorf("%s: got %+v", entry, got)
			}
			if got := h.call("fail", `{}`); got.fault.Kind != wire.KindUser || got.fault.Type != "ValueError" {
				t.Errorf("%s: got %+v", entry, got)
			}
			for status, kind := range map[int]wire.Kind{404: wire.KindInput, 429: wire.KindUser, 503: wire.KindUser, 302: wire.KindUser} {
				h.begin(wire.Call{HTTP: nil, Method: fmt.Sprintf("status?%d", status)}, "")
				if got := h.ended(); got.fault.Kind != kind || !strings.Contains(got.fault.Message, "as told") {
					t.Errorf("%s %d: got %+v", entry, status, got)
				}
			}
			h.begin(wire.Call{HTTP: &wire.Request{Method: "GET", Target: "/status?404", Host: "h"}}, "")
			msg := h.next(wire.TypeResult)
			var meta wire.Result
			if err := msg.DecodeMeta(&meta); err != nil || meta.HTTP == nil || meta.HTTP.Status != 404 || string(msg.Payload) != "as told" {
				t.Errorf("%s: got %s %q, %v", entry, msg.Meta, msg.Payload, err)
			}
			h.drain()
		}
	})
}

// socket is the client's side of a WebSocket, by hand.
type socket struct {
	t   *testing.T
	rw  io.ReadWriteCloser
	in  *bufio.Reader
	sub string
}

func (w *web) dial(t *testing.T, path string) (*socket, *http.Response) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://app"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "chat, other",
	} {
		request.Header.Set(name, value)
	}
	response, err := w.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	rw, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		return nil, response
	}
	return &socket{t, rw, bufio.NewReader(rw), response.Header.Get("Sec-WebSocket-Protocol")}, response
}

func (s *socket) send(first byte, data string) {
	s.t.Helper()
	frame := []byte{first}
	switch size := len(data); {
	case size < 126:
		frame = append(frame, 0x80|byte(size))
	case size < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(size))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 0x80|127), uint64(size))
	}
	mask := []byte{1, 2, 3, 4}
	frame = append(frame, mask...)
	for i := range len(data) {
		frame = append(frame, data[i]^mask[i%4])
	}
	if _, err := s.rw.Write(frame); err != nil {
		s.t.Fatal(err)
	}
}

func (s *socket) receive() (first byte, data []byte) {
	s.t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(s.in, head); err != nil {
		s.t.Fatal(err)
	}
	size := uint64(head[1])
	extra := map[uint64]int{126: 2, 127: 8}[size]
	if extra > 0 {
		long := make([]byte, 8)
		if _, err := io.ReadFull(s.in, long[8-extra:]); err != nil {
			s.t.Fatal(err)
		}
		size = binary.BigEndian.Uint64(long)
	}
	data = make([]byte, size)
	if _, err := io.ReadFull(s.in, data); err != nil {
		s.t.Fatal(err)
	}
	return head[0], data
}

func TestWebSockets(t *testing.T) {
	everyPython(t, func(t *testing.T, interpreter string) {
		w := serveWeb(t, interpreter, "app:asgi")
		s, response := w.dial(t, "/chat")
		if s == nil || s.sub != "chat" || response.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Fatalf("got %s %v", response.Status, response.Header)
		}
		for _, size := range []int{0, 5, 125, 126, 70_000, 300_000} {
			text := strings.Repeat("é", size/2)
			s.send(0x81, text)
			if first, data := s.receive(); first != 0x81 || string(data) != text {
				t.Fatalf("a text of %d bytes: 0x%02x, %d bytes", len(text), first, len(data))
			}
		}
		s.send(0x82, "\x00\xff")
		if first, data := s.receive(); first != 0x82 || !bytes.Equal(data, []byte("\x00\xff")) {
			t.Errorf("got 0x%02x %q", first, data)
		}
		s.send(0x01, "in ")
		s.send(0x89, "ping")
		s.send(0x80, "pieces")
		if first, data := s.receive(); first != 0x8A || string(data) != "ping" {
			t.Errorf("got 0x%02x %q", first, data)
		}
		if first, data := s.receive(); first != 0x81 || string(data) != "in pieces" {
			t.Errorf("got 0x%02x %q", first, data)
		}
		s.send(0x81, "bye")
		if first, data := s.receive(); first != 0x88 || binary.BigEndian.Uint16(data) != 4000 || string(data[2:]) != "as asked" {
			t.Errorf("got 0x%02x %q", first, data)
		}
		_ = s.rw.Close()
		if s, response := w.dial(t, "/refused"); s != nil || response.StatusCode != 403 {
			t.Errorf("got %s", response.Status)
		}
		for name, bad := range map[string]struct {
			first byte
			data  string
			code  uint16
		}{
			"not UTF-8": {0x81, "\xff", 1007}, "reserved bits": {0xC1, "", 1002}, "a continuation of nothing": {0x80, "", 1002},
			"a long ping": {0x89, strings.Repeat("x", 126), 1002}, "an unknown kind": {0x83, "", 1002}, "a close": {0x88, "\x0f\xa1gone", 4001},
		} {
			s, _ := w.dial(t, "/chat")
			s.send(bad.first, bad.data)
			if first, data := s.receive(); first != 0x88 || binary.BigEndian.Uint16(data) != bad.code {
				t.Errorf("%s: got 0x%02x %q", name, first, data)
			}
			_ = s.rw.Close()
		}
	})
}

// TestRequestsThatAreNone gets 400, and other connections go on.
func TestRequestsThatAreNone(t *testing.T) {
	w := serveWeb(t, pythons(t)[0], "app:asgi")
	for _, text := range []string{
		"\x16\x03\x01\x02\x00\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 70<<10),
	} {
		c, err := w.streams.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		data, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, io.EOF) || !bytes.HasPrefix(data, []byte("HTTP/1.1 400 ")) {
			t.Errorf("%.40q: got %.100q, %v", text, data, err)
		}
		_ = c.Close()
	}
	if _, body := w.do("POST", "/echo", "on"); body != "on" {
		t.Errorf("got %q", body)
	}
}
