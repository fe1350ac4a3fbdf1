// Command guest is the server in the sandboxes of the tests of web endpoints: of an image, and as functions of the Go SDK.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/web"
)

// tick is the pause between two events.
const tick = 50 * time.Millisecond

func main() {
	s := &server{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/echo/", s.echo)
	mux.HandleFunc("/sum", s.sum)
	mux.HandleFunc("POST /chat", s.chat)
	mux.HandleFunc("GET /zeros", s.zeros)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /socket", s.socket)
	mux.HandleFunc("GET /hang", s.hang)
	mux.HandleFunc("POST /hang", s.hang)
	mux.HandleFunc("GET /left", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.left.Load()) })
	mux.HandleFunc("POST /crash", s.crash)
	mux.HandleFunc("GET /page", s.page)
	if port := os.Getenv("PORT"); port != "" { // in an image
		server := &http.Server{Addr: "127.0.0.1:" + port, Handler: mux, ReadHeaderTimeout: time.Minute}
		log.Fatal(server.ListenAndServe())
	}
	app := freshet.New("site")
	loaded := ""
	mux.HandleFunc("GET /loaded", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, loaded, " ", freshet.Worker(r.Context()).Alloc)
	})
	load := freshet.Enter(func(ctx context.Context) error {
		loaded = freshet.Worker(ctx).Alloc
		return nil
	})
	web.Handle(app, "handler", mux, load, freshet.Concurrency(4), freshet.Scale(0, 1), freshet.Timeout(time.Minute))
	web.Handle(app, "open", mux, load, freshet.Public(), freshet.Domains("open.example.org"), freshet.ScaledownWindow(time.Second))
	app.Main()
}

// server counts the clients that left before their answer was whole.
type server struct{ left atomic.Int64 }

// seen is a request as the server saw it.
type seen struct {
	Method, Target, Host, Body string
	Header, Trailer            http.Header
}

func (s *server) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
		w.WriteHeader(status)
	}
	_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, string(body), r.Header, r.Trailer})
}

// sum reads a body of any size.
func (s *server) sum(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	size, err := io.CopyBuffer(sum, struct{ io.Reader }{r.Body}, make([]byte, 256<<10))
	if err != nil {
		s.left.Add(1)
		return
	}
	fmt.Fprintf(w, "%d %s", size, hex.EncodeToString(sum.Sum(nil)))
}

// chat answers each line while it reads the next ones.
func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	if c.EnableFullDuplex() != nil || c.Flush() != nil {
		return
	}
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		fmt.Fprintln(w, "heard", lines.Text())
		if c.Flush() != nil {
			return
		}
	}
}

// zeros writes a body of any size.
func (s *server) zeros(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.URL.Query().Get("length") != "" {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	}
	chunk := make([]byte, 64<<10)
	for size > 0 {
		n, err := w.Write(chunk[:min(size, int64(len(chunk)))])
		if err != nil {
			s.left.Add(1)
			return
		}
		size -= int64(n)
	}
}

// events sends one at each tick, from where the client was.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	number, _ := strconv.Atoi(r.Header.Get("Last-Event-Id"))
	most, _ := strconv.Atoi(r.URL.Query().Get("most"))
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for most == 0 || number < most {
		number++
		fmt.Fprintf(w, "id: %d\ndata: event %d\n\n", number, number)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			s.left.Add(1)
			return
		}
	}
}

// socket says each message again.
func (s *server) socket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(16 << 20)
	ctx := context.WithoutCancel(r.Context())
	for {
		kind, data, err := conn.Read(ctx)
		if err != nil {
			if websocket.CloseStatus(err) == -1 {
				s.left.Add(1)
			}
			return
		}
		if err := conn.Write(ctx, kind, data); err != nil {
			return
		}
	}
}

// hang waits for some time, or until the client leaves.
func (s *server) hang(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	wait, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(wait):
		fmt.Fprint(w, "waited ", wait)
	case <-r.Context().Done():
		s.left.Add(1)
	}
}

// crash ends the server, before its answer or in the middle of it.
func (s *server) crash(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("when") == "midway" {
		fmt.Fprint(w, "half of ")
		_ = http.NewResponseController(w).Flush()
	}
	fmt.Fprintln(os.Stderr, "told to crash")
	os.Exit(7)
}

// page opens a WebSocket and an event source, and shows what it hears.
func (s *server) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, `<!doctype html><title>page</title><pre id="socket"></pre><pre id="events"></pre><script>
const say = (id, text) => document.getElementById(id).textContent += text + "\n";
const at = new URL("socket", location); at.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const socket = new WebSocket(at);
let sent = 0;
socket.onopen = () => socket.send("message " + ++sent);
socket.onmessage = (m) => { say("socket", m.data); sent < 5 ? socket.send("message " + ++sent) : socket.close(1000); };
socket.onclose = (e) => say("socket", "closed " + e.code);
const source = new EventSource("events?most=3");
source.onmessage = (m) => { say("events", m.lastEventId + ": " + m.data); if (m.lastEventId === "3") { source.close(); say("events", "done"); } };
source.onerror = () => say("events", "error");
</script>`)
}
