package web

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// TestRequests sends what clients send to one server; the first request finds no worker.
func TestRequests(t *testing.T) {
	address := deploy(t, "requests")
	if got := workers(t, "requests"); len(got) != 0 {
		t.Fatalf("there are workers before the first request: %+v", got)
	}
	t.Run("every method", func(t *testing.T) { everyMethod(t, address) })
	t.Run("what the server sees", func(t *testing.T) { whatTheServerSees(t, address) })
	t.Run("bodies", func(t *testing.T) { bodies(t, address, 16<<20) })
	t.Run("both ways at once", func(t *testing.T) { bothWays(t, http.DefaultClient, address) })
	t.Run("HTTP/2", func(t *testing.T) { bothWays(t, overHTTP2(t), address) })
	t.Run("events", func(t *testing.T) { events(t, address) })
	t.Run("WebSocket", func(t *testing.T) { sockets(t, address) })
	t.Run("a browser", func(t *testing.T) { inABrowser(t, address) })
	t.Run("clients that leave", func(t *testing.T) { leave(t, address) })
	t.Run("calls beside", func(t *testing.T) {
		response, err := cluster.Call(t, "web.requests", "chat", "hello\n")
		if err != nil || string(response.Body) != "heard hello\n" {
			t.Errorf("%q, %v", response.Body, err)
		}
	})
	t.Run("many at once", func(t *testing.T) { manyAtOnce(t, address) })
	t.Run("programs", func(t *testing.T) { programs(t, address) })
}

func everyMethod(t *testing.T, address string) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		body := ""
		if method == "POST" || method == "PUT" || method == "PATCH" || method == "PROPFIND" {
			body = "the body of " + method
		}
		response, text := ask(t, method, address+"/echo/a%2Fb/c%20d?q=1&r=%20;x", strings.NewReader(body))
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s: %s", method, response.Status, text)
			continue
		}
		if method == "HEAD" {
			continue
		}
		var got seen
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%s: %v: %s", method, err, text)
		}
		if got.Method != method || got.Target != "/echo/a%2Fb/c%20d?q=1&r=%20;x" || got.Body != body {
			t.Errorf("%s: the server saw %+v", method, got)
		}
	}
	for _, status := range []int{201, 204, 302, 404, 418, 500, 503} {
		response, _ := ask(t, "POST", fmt.Sprintf("%s/echo/?status=%d", address, status), nil)
		if response.StatusCode != status || response.Header.Get("Freshet-Error") != "" {
			t.Errorf("status %d came as %d", status, response.StatusCode)
		}
	}
}

func whatTheServerSees(t *testing.T, address string) {
	response, text := ask(t, "GET", address+"/echo/", nil, "Authorization", "Basic eDp5", "X-Forwarded-For", "192.0.2.1", "X-Own", "a", "X-Own", "b",
		"Freshet-Door-Key", "guess", "Forwarded", "for=192.0.2.1", "Cookie", "a=b")
	var got seen
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for name, want := range map[string]string{
		"Authorization": "Basic eDp5", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Prefix": "/web/web/requests", "X-Own": "a,b", "X-Forwarded-Proto": "http",
		"Freshet-Door-Key": "", "X-Forwarded-Host": got.Host, "Cookie": "a=b", "Freshet-Call": response.Header.Get("Freshet-Call"),
		"Forwarded": fmt.Sprintf("for=127.0.0.1;host=%q;proto=http", got.Host),
	} {
		if header := strings.Join(got.Header.Values(name), ","); header != want {
			t.Errorf("the server saw %s: %s, want %s", name, header, want)
		}
	}
	if len(response.Header.Get("Freshet-Call")) != 26 {
		t.Errorf("the answer has Freshet-Call %q", response.Header.Get("Freshet-Call"))
	}
	response, _ = ask(t, "POST", address+"?a=b", nil)
	if response.StatusCode != http.StatusPermanentRedirect || response.Header.Get("Location") != "/web/web/requests/?a=b" {
		t.Errorf("without a slash: %s to %s", response.Status, response.Header.Get("Location"))
	}
}

// noise is a body of random bytes, and its sum as the server tells it.
func noise(size int64) (io.Reader, func() string) {
	source := rand.NewChaCha8([32]byte{1})
	sum := sha256.New()
	return io.TeeReader(io.LimitReader(source, size), sum), func() string { return fmt.Sprintf("%d %s", size, hex.EncodeToString(sum.Sum(nil))) }
}

// bodies sends and fetches large ones, of a length that is known and that is not.
func bodies(t *testing.T, address string, size int64) {
	body, want := noise(size)
	if response, text := ask(t, "POST", address+"/sum", body); response.StatusCode != http.StatusOK || text != want() {
		t.Errorf("%s: %s, want %s", response.Status, text, want())
	}
	for _, query := range []string{"", "&length=told"} {
		response, text := ask(t, "GET", fmt.Sprintf("%s/zeros?size=%d%s", address, size, query), nil)
		if int64(len(text)) != size || response.ContentLength >= 0 != (query != "") {
			t.Errorf("%d bytes of %d came, with the length %d", len(text), size, response.ContentLength)
		}
	}
}

func overHTTP2(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// bothWays reads the answer to each line before it sends the next one.
func bothWays(t *testing.T, client *http.Client, address string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reader, writer := io.Pipe()
	defer func() { _ = writer.Close() }() // again, when the test failed
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/chat", reader)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	lines := bufio.NewScanner(response.Body)
	for i := range 20 {
		if _, err := fmt.Fprintf(writer, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != fmt.Sprintf("heard line %d", i) {
			t.Fatalf("line %d over %s: %q, %v", i, response.Proto, lines.Text(), lines.Err())
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("after the end: %q, %v", lines.Text(), lines.Err())
	}
}

func events(t *testing.T, address string) {
	response, text := ask(t, "GET", address+"/events?most=5", nil, "Last-Event-Id", "2")
	if want := "id: 3\ndata: event 3\n\nid: 4\ndata: event 4\n\nid: 5\ndata: event 5\n\n"; text != want || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%s: %q", response.Header.Get("Content-Type"), text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err = http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // what comes after is nobody's
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil || line != "id: 1\n" {
		t.Errorf("an endless stream began with %q, %v", line, err)
	}
}

func sockets(t *testing.T, address string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, response, err := websocket.Dial(ctx, strings.Replace(address, "http://", "ws://", 1)+"/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }() // again, when the test failed
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("answered with %s", response.Status)
	}
	conn.SetReadLimit(16 << 20)
	for _, size := range []int{1, 100, 8 << 20} {
		message := strings.Repeat("m", size)
		if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.Read(ctx); err != nil || string(got) != message {
			t.Fatalf("%d bytes came back of %d, %v", len(got), size, err)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
}

// leave goes away in the middle of requests: the server must see it.
func leave(t *testing.T, address string) {
	before := left(t, address)
	for _, what := range []string{"/events", "/hang?for=1h", "/zeros?size=100000000000"} {
		eventually.True(t, "nothing runs", func() bool { return busy(t, address) == 0 })
		ctx, cancel := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+what, nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := make(chan struct{})
		go func() {
			defer close(begun)
			response, err := http.DefaultClient.Do(request)
			if err == nil {
				_, _ = io.ReadFull(response.Body, make([]byte, 10))
				<-ctx.Done()
				_ = response.Body.Close()
			}
		}()
		eventually.True(t, what+" runs", func() bool { return busy(t, address) > 0 })
		cancel()
		<-begun
		before++
		eventually.True(t, "the server saw that the client of "+what+" left", func() bool { return left(t, address) == before })
	}
	eventually.True(t, "all slots are free", func() bool { return busy(t, address) == 0 })
}

// busy is how many requests run in the workers of the function at an address.
func busy(t *testing.T, address string) int {
	t.Helper()
	parts := strings.Split(address, "/")
	sum := 0
	for _, beat := range cluster.Workers(t, parts[len(parts)-2], parts[len(parts)-1]) {
		sum += beat.Web
	}
	return sum
}

// manyAtOnce sends more than there are slots: those wait, and none fails.
func manyAtOnce(t *testing.T, address string) {
	var asking sync.WaitGroup
	for i := range 64 {
		asking.Go(func() {
			want := fmt.Sprintf("number %d", i)
			response, text := ask(t, "POST", address+"/echo/", strings.NewReader(want))
			var got seen
			if err := json.Unmarshal([]byte(text), &got); err != nil || got.Body != want {
				t.Errorf("%s: %q, %v", response.Status, text, err)
			}
		})
	}
	asking.Wait()
}
