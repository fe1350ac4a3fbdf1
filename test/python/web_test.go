package python

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/freshet-dev/freshet/internal/eventually"
)

const webApps = `
import asyncio, hashlib

left = 0

async def asgi(scope, receive, send):
    global left
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})
        return
    path = scope["path"]
    kind = b"text/event-stream" if path == "/events" else b"text/plain"
    if path != "/sum":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    async def say(text, more=True):
        await send({"type": "http.response.body", "body": text, "more_body": more})
    if path == "/chat":
        more = True
        while more:
            event = await receive()
            more = event["more_body"]
            if event["body"]:
                await say(b"heard " + event["body"])
    elif path == "/events":
        await say(b"data: 1\n\n")
        while (await receive())["type"] != "http.disconnect":
            pass
        left += 1
        return
    elif path == "/left":
        await say(b"%d" % left)
    elif path == "/sum":
        size, digest, more = 0, hashlib.sha256(), True
        while more:
            event = await receive()
            size, more = size + len(event["body"]), event["more_body"]
            digest.update(event["body"])
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await say(b"%d %s" % (size, digest.hexdigest().encode()))
    await say(b"", False)

def wsgi(environ, start_response):
    size, digest = 0, hashlib.sha256()
    while piece := environ["wsgi.input"].read(1 << 16):
        size += len(piece)
        digest.update(piece)
    start_response("201 Created", [("X-Path", environ["SCRIPT_NAME"] + "|" + environ["PATH_INFO"])])
    yield b"%d " % size
    yield digest.hexdigest().encode()
`

// endpoint runs a web app as py.NAME and returns its address. Nobody has asked it before.
func endpoint(t *testing.T, name, entry string) string {
	t.Helper()
	run(t, name, entry, bundle(t, map[string]string{"app.py": webApps}),
		"concurrency = 1 ", "web { enabled = true }\n        concurrency = 8 ", "max     = 10", "max     = 1", `window = "1s"`, `window = "60s"`)
	return cluster.State.Gateway() + "/web/py/" + name
}

func request(ctx context.Context, t *testing.T, method, address string, body io.Reader) *http.Response {
	t.Helper()
	asked, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(asked)
	if err != nil {
		t.Fatalf("%s %s: %v", method, address, err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// upload sends so many bytes, of a length that the server is not told, and checks what it says of them.
func upload(t *testing.T, address string, size int64) *http.Response {
	t.Helper()
	sum := sha256.New()
	response := request(t.Context(), t, http.MethodPost, address, io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sum))
	text, err := io.ReadAll(response.Body)
	if want := fmt.Sprintf("%d %x", size, sum.Sum(nil)); err != nil || response.StatusCode != http.StatusCreated || string(text) != want {
		t.Errorf("%s: %s, %v; want %s", response.Status, text, err, want)
	}
	return response
}

// TestASGIAppThroughTheGateway: an app without a framework streams both ways, and takes all that web clients send.
func TestASGIAppThroughTheGateway(t *testing.T) {
	address := endpoint(t, "asgi", "app:asgi")
	upload(t, address+"/sum", 64<<20)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reader, writer := io.Pipe()
	defer func() { _ = writer.Close() }() // again, when the test failed
	heard := bufio.NewScanner(request(ctx, t, http.MethodPost, address+"/chat", reader).Body)
	for i := range 10 {
		if _, err := fmt.Fprintf(writer, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		if !heard.Scan() || heard.Text() != fmt.Sprintf("heard line %d", i) {
			t.Fatalf("line %d: %q, %v", i, heard.Text(), heard.Err())
		}
	}
	if err := writer.Close(); err != nil || heard.Scan() || heard.Err() != nil {
		t.Errorf("after the end: %v, %q, %v", err, heard.Text(), heard.Err())
	}
	watching, leave := context.WithCancel(ctx)
	defer leave()
	stream := request(watching, t, http.MethodGet, address+"/events", nil)
	if line, err := bufio.NewReader(stream.Body).ReadString('\n'); err != nil || line != "data: 1\n" || stream.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("the events began with %q, %v", line, err)
	}
	leave()
	eventually.True(t, "the app saw that its client left", func() bool {
		text, err := io.ReadAll(request(ctx, t, http.MethodGet, address+"/left", nil).Body)
		return err == nil && string(text) == "1"
	})
	conn, _, err := websocket.Dial(ctx, strings.Replace(address, "http://", "ws://", 1)+"/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }() // again, when the test failed
	conn.SetReadLimit(2 << 20)
	for _, size := range []int{1, 200, 1 << 20} {
		said := strings.Repeat("m", size)
		if err := conn.Write(ctx, websocket.MessageText, []byte(said)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.Read(ctx); err != nil || string(got) != said {
			t.Fatalf("%d bytes came back of %d, %v", len(got), size, err)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestWSGIAppThroughTheGateway(t *testing.T) {
	address := endpoint(t, "wsgi", "app:wsgi")
	if path := upload(t, address+"/a%20b", 8<<20).Header.Get("X-Path"); path != "|/a b" {
		t.Errorf("the app was asked for %q", path)
	}
}
