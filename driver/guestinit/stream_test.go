package guestinit_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/freshet-dev/freshet/driver/guestinit"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/webstream"
	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// open opens a stream.
func (h *host) open() *stream.Conn {
	h.t.Helper()
	conn, err := h.opener.Open(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return conn
}

// proxy is a gateway in front of a guest's server; the address is its own.
func proxy(t testing.TB, h *host) *httptest.Server {
	t.Helper()
	h.transport = webstream.NewTransport(h.opener)
	t.Cleanup(h.transport.CloseIdleConnections)
	target := &url.URL{Scheme: "http", Host: "guest"}
	forward := &httputil.ReverseProxy{
		Transport: h.transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front
}

func fetch(t testing.TB, address string) string {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestRequestsThroughAProxy(t *testing.T) {
	h := start(t, server(t)).greet()
	front := proxy(t, h)
	if body := fetch(t, front.URL+"/path?q=1"); !strings.Contains(body, `"target":"/path?q=1"`) || !strings.Contains(body, strings.TrimPrefix(front.URL, "http://")) {
		t.Errorf("got %s", body)
	}
	const size = 8 << 20
	if body := fetch(t, fmt.Sprint(front.URL, "/zeros?size=", size)); len(body) != size {
		t.Errorf("a download of %d bytes has %d", size, len(body))
	}
	response, err := http.Post(front.URL+"/length", "application/octet-stream", bytes.NewReader(make([]byte, size)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != fmt.Sprint(size) {
		t.Errorf("an upload of %d bytes: %s, %v", size, body, err)
	}
	var many sync.WaitGroup
	for range 50 {
		many.Go(func() {
			if body := fetch(t, front.URL+"/slow"); body != "slow" {
				t.Errorf("got %q", body)
			}
		})
	}
	many.Wait()
}

// TestEventsComeAsTheyHappen also sends the request bit by bit: each event answers what was sent before it.
func TestEventsComeAsTheyHappen(t *testing.T) {
	h := start(t, server(t)).greet()
	front := proxy(t, h)
	body, feed := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/events", body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	for i := range 5 {
		fmt.Fprintln(feed, "line", i)
		event, err := lines.ReadString('\n')
		if err != nil || event != fmt.Sprintln("data: line", i) {
			t.Fatalf("got %q, %v", event, err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	_ = feed.Close()
	if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

// socketEcho sends messages over a WebSocket and closes it; the largest has the size.
func socketEcho(t testing.TB, address string, size int) {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(address, "http")+"/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(8 << 20)
	for _, message := range []string{"hello", strings.Repeat("x", size), "bye"} {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, echo, err := conn.Read(t.Context()); err != nil || string(echo) != message {
			t.Fatalf("got %d bytes, %v", len(echo), err)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

func TestWebSocket(t *testing.T) {
	h := start(t, server(t)).greet()
	front := proxy(t, h)
	socketEcho(t, front.URL, 4<<20)
	eventually.True(t, "the close reached the server", func() bool { return h.logged(0, "socket closed: StatusNormalClosure") })
}

func TestAClientThatLeavesIsNoticedInTheServer(t *testing.T) {
	h := start(t, server(t)).greet()
	front := proxy(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		eventually.True(t, "the server has the request", func() bool { return h.logged(0, "hanging") })
		cancel()
	}()
	defer func() { <-left }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, front.URL+"/hang", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := http.DefaultTransport.RoundTrip(request); err == nil {
		_ = response.Body.Close()
		t.Fatal("a request that hangs was answered")
	}
	eventually.True(t, "the server noticed", func() bool { return fetch(t, front.URL+"/cancelled") == "1" })
}

// TestASlowClientHoldsNeitherMemoryNorOthers: an endless response that nobody reads stops after the windows on its way.
func TestASlowClientHoldsNeitherMemoryNorOthers(t *testing.T) {
	h := start(t, server(t)).greet()
	var slow []*stream.Conn
	for range 20 {
		conn := h.open()
		if _, err := io.WriteString(conn, "GET /zeros?size=10000000000 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	for range 10 {
		if _, output, fault := h.call(get("/count"), ""); fault != nil {
			t.Fatalf("got %q, %v", output, fault)
		}
	}
	if kb := residentKB(t, h.pid); kb > 300<<10 { // the race detector is in it
		t.Errorf("init holds %d kB", kb)
	}
	for _, conn := range slow {
		if n, err := io.CopyN(io.Discard, conn, 4*wire.StreamWindow); err != nil {
			t.Errorf("read %d bytes late: %v", n, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStreamsToNobody(t *testing.T) {
	settings := guestinit.Settings{HTTP: &guestinit.HTTP{Command: []string{"sh", "-c", "exec " + build(t).server}, Port: freePort(t)}}
	h := start(t, settings).greet()
	h.begin(get("/exit?code=3"), "")
	<-h.ended
	if _, err := h.opener.Open(t.Context()); err == nil {
		t.Error("a stream was opened to a guest that ended")
	}
}

func TestDrainWaitsForStreams(t *testing.T) {
	h := start(t, server(t)).greet()
	conn := h.open()
	if _, err := io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(nil); err != nil {
		t.Fatal(err)
	}
	h.send(wire.TypeDrain, 0, nil, nil)
	if _, err := h.opener.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "takes no more") {
		t.Errorf("a stream after the drain: %v", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(answer), "slow") {
		t.Errorf("got %q, %v", answer, err)
	}
	_ = conn.Close()
	h.next(wire.TypeDrained)
}

// TestStreamsAreConnections runs the conformance tests of net.Conn over two sides that speak through pipes.
func TestStreamsAreConnections(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		toGuest, hostOut := io.Pipe()
		toHost, guestOut := io.Pipe()
		accepted, finished := make(chan *stream.Conn, 1), make(chan struct{})
		acceptor := stream.NewAcceptor(wire.NewWriter(guestOut), func(c *stream.Conn) {
			_ = c.Accept()
			accepted <- c
			<-finished
		})
		opener := stream.NewOpener(wire.NewWriter(hostOut))
		var reading sync.WaitGroup
		pump := func(in io.Reader, handle func(wire.Message) error) {
			r := wire.NewReader(in, 0)
			for {
				msg, err := r.Read()
				if err != nil {
					return
				}
				if err := handle(msg); err != nil {
					t.Error(err)
				}
			}
		}
		reading.Go(func() { pump(toGuest, acceptor.Handle) })
		reading.Go(func() { pump(toHost, opener.Handle) })
		host, err := opener.Open(t.Context())
		if err != nil {
			return nil, nil, nil, err
		}
		guest := <-accepted
		return host, guest, func() {
			_, _ = host.Close(), guest.Close()
			close(finished)
			_, _ = hostOut.Close(), guestOut.Close()
			reading.Wait()
			acceptor.Close(io.ErrClosedPipe)
		}, nil
	})
}
