// Command server is an HTTP server for the tests: each path misbehaves, or behaves, in its own way.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 && os.Args[1] == "fail" {
		log.Print("no configuration")
		os.Exit(7)
	}
	began := time.Now()
	var sick atomic.Bool
	var count, cancelled atomic.Int64
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(began) < 50*time.Millisecond {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/live", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	http.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	http.HandleFunc("/count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, count.Add(1)) })
	http.HandleFunc("/cancelled", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, cancelled.Load()) })
	http.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Query().Get("code"))
		log.Print("leaving")
		os.Exit(code)
	})
	http.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Query().Get("code"))
		w.WriteHeader(code)
		fmt.Fprint(w, "because of ", code)
	})
	http.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) {
		log.Print("hanging")
		<-r.Context().Done()
		cancelled.Add(1)
	})
	http.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		<-time.After(300 * time.Millisecond)
		fmt.Fprint(w, "slow")
	})
	http.HandleFunc("/zeros", func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
		_, _ = io.CopyN(w, zeros{}, size)
	})
	http.HandleFunc("/half", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
		panic(http.ErrAbortHandler)
	})
	http.HandleFunc("/length", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	http.HandleFunc("/events", events)
	http.HandleFunc("/socket", socket)
	http.HandleFunc("/", show)
	serve()
}

// serve serves on PORT until SIGTERM, and lets what runs finish.
func serve() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Print(http.Serve(listener, nil)) }()
	fmt.Println("serving")
	<-stop
	fmt.Println("asked to stop")
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// show answers with what it was asked.
func show(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Add("X-Many", "one")
	w.Header().Add("X-Many", "two")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"method": r.Method, "target": r.RequestURI, "host": r.Host, "body": string(body), "header": r.Header,
	})
}

// events sends an event for each line of the request's body as it comes.
func events(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex()
	w.Header().Set("Content-Type", "text/event-stream")
	_ = control.Flush()
	line := make([]byte, 100)
	for {
		n, err := r.Body.Read(line)
		if n > 0 {
			fmt.Fprintf(w, "data: %s\n\n", strings.TrimSpace(string(line[:n])))
			_ = control.Flush()
		}
		if err != nil {
			return
		}
	}
}

// socket echoes what a WebSocket sends.
func socket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		log.Print(err)
		return
	}
	conn.SetReadLimit(8 << 20)
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			log.Print("socket closed: ", websocket.CloseStatus(err))
			return
		}
		if err := conn.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}
