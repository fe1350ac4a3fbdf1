package guestinit_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/driver/guestinit"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// freePort is a port that nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// server are the settings of the tests' server.
func server(t testing.TB, args ...string) guestinit.Settings {
	return guestinit.Settings{HTTP: &guestinit.HTTP{Command: append([]string{build(t).server}, args...), Port: freePort(t), Ready: "/ready"}}
}

// get is a call that is a request.
func get(target string) wire.Call {
	meta := attempt("c1")
	meta.ContentType = ""
	meta.HTTP = &wire.Request{Method: "GET", Target: target}
	return meta
}

type shown struct {
	Method, Target, Host, Body string
	Header                     map[string][]string
}

func TestCallsReachAServer(t *testing.T) {
	h := start(t, server(t)).greet()
	named := attempt("c1")
	named.Method, named.Traceparent = "do it", "00-abc"
	full := attempt("c1")
	full.HTTP = &wire.Request{
		Method: "PUT", Target: "/a%2Fb/c?d=e&d=f", Host: "example.com",
		Header: map[string][]string{"x-own": {"1", "2"}, "Connection": {"x-drop"}, "X-Drop": {"1"}, "Te": {"trailers"}, "User-Agent": {"me"}},
	}
	for name, test := range map[string]struct {
		meta wire.Call
		want shown
		has  map[string]string
	}{
		"plain":   {attempt("c1"), shown{Method: "POST", Target: "/", Body: "in"}, map[string]string{"Content-Type": "application/json", "Freshet-Call": "c1", "Freshet-Attempt": "1", "Freshet-Deadline": "2030-03-17T17:46:40Z", "User-Agent": "", "X-Own": ""}},
		"method":  {named, shown{Method: "POST", Target: "/do%20it", Body: "in"}, map[string]string{"Traceparent": "00-abc"}},
		"request": {full, shown{Method: "PUT", Target: "/a%2Fb/c?d=e&d=f", Host: "example.com", Body: "in"}, map[string]string{"X-Own": "1,2", "Connection": "close", "X-Drop": "", "Te": "", "User-Agent": "me", "Content-Length": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			result, output, fault := h.call(test.meta, "in")
			if fault != nil {
				t.Fatal(fault)
			}
			var got shown
			if err := json.Unmarshal([]byte(output), &got); err != nil {
				t.Fatal(err)
			}
			for name, want := range test.has {
				if value := strings.Join(got.Header[name], ","); value != want {
					t.Errorf("header %s is %q, want %q", name, value, want)
				}
			}
			if got.Method != test.want.Method || got.Target != test.want.Target || got.Body != test.want.Body || test.want.Host != "" && got.Host != test.want.Host {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if many := strings.Join(result.HTTP.Header["X-Many"], ","); result.ContentType != "application/json" || result.HTTP.Status != 200 || many != "one,two" {
				t.Errorf("got %+v %+v", result, result.HTTP)
			}
		})
	}
	eventually.True(t, "what the server prints is the guest's log", func() bool { return h.logged(0, "serving") })
}

func TestWhatAServerMayAnswer(t *testing.T) {
	h := start(t, server(t))
	h.hello(1 << 20)
	h.next(wire.TypeReady)
	plain := func(method string) wire.Call {
		meta := attempt("c1")
		meta.Method = method
		return meta
	}
	for name, test := range map[string]struct {
		meta   wire.Call
		status int
		want   wire.Error
	}{
		"any status of a request": {get("/status?code=503"), 503, wire.Error{}},
		"nothing":                 {get("/status?code=204"), 204, wire.Error{}},
		"cut short":               {plain("half"), 0, wire.Error{Kind: wire.KindUser, Type: "connection", Message: "the server did not answer: read the server's response: unexpected EOF"}},
		"too long":                {get("/zeros?size=1048577"), 0, wire.Error{Kind: wire.KindUser, Type: "output", Message: "the server's response is longer than 1048576 bytes, which is the limit of a result: stream it"}},
		"just not too long":       {get("/zeros?size=1048576"), 200, wire.Error{}},
		"no target":               {get("status"), 0, wire.Error{Kind: wire.KindInput, Message: `http.target: "status": begin it with /`}},
		"aborted":                 {plain("status"), 0, wire.Error{Kind: wire.KindUser, Type: "connection", Message: "the server did not answer: read the server's response: unexpected EOF"}},
	} {
		t.Run(name, func(t *testing.T) {
			result, _, fault := h.call(test.meta, "")
			if fault == nil {
				fault = &wire.Error{}
			}
			if *fault != test.want || test.status != 0 && result.HTTP.Status != test.status {
				t.Errorf("got %+v, %+v, want %d, %+v", result, fault, test.status, test.want)
			}
		})
	}
}

func TestStatusesOfPlainCallsAreErrors(t *testing.T) {
	h := start(t, guestinit.Settings{HTTP: &guestinit.HTTP{Command: []string{
		"sh", "-c", `exec python3 -c "
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(int(self.path[1:])); self.end_headers(); self.wfile.write(b'why')
    def log_message(self, *a): pass
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()"`,
	}, Port: freePort(t)}}).greet()
	for code, want := range map[string]wire.Error{
		"400": {Kind: wire.KindInput, Type: "HTTP 400", Message: "the server answered 400 Bad Request: why"},
		"429": {Kind: wire.KindUser, Type: "HTTP 429", Message: "the server answered 429 Too Many Requests: why"},
		"500": {Kind: wire.KindUser, Type: "HTTP 500", Message: "the server answered 500 Internal Server Error: why"},
		"302": {Kind: wire.KindUser, Type: "HTTP 302", Message: "the server answered 302 Found: why"},
	} {
		meta := attempt("c1")
		meta.Method = code
		if _, _, fault := h.call(meta, "{}"); fault == nil || *fault != want {
			t.Errorf("%s: got %+v, want %+v", code, fault, want)
		}
	}
}

func TestServersThatDoNotStart(t *testing.T) {
	for name, test := range map[string]struct {
		settings guestinit.Settings
		want     string
		code     int
	}{
		"exits":      {server(t, "fail"), "the server exited with code 7 before it was ready: no configuration", 7},
		"daemonizes": {guestinit.Settings{HTTP: &guestinit.HTTP{Command: []string{"sh", "-c", "setsid sleep 1000 & exit 0"}, Port: freePort(t)}}, "the server exited with code 0 before it was ready: it must stay in the foreground", 1},
		"is missing": {guestinit.Settings{HTTP: &guestinit.HTTP{Command: []string{"no-such-server"}, Port: freePort(t)}}, `command[0]: "no-such-server"`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, test.settings)
			h.hello(0)
			if fault := h.fault(); !strings.Contains(fault.Message, test.want) {
				t.Errorf("got %+v, want %s", fault, test.want)
			}
			if code := h.exitCode(); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
		})
	}
}

// TestAServerThatEndsEndsTheGuest: the call that was running is not answered; the end of the guest is its error.
func TestAServerThatEndsEndsTheGuest(t *testing.T) {
	for target, test := range map[string]struct {
		code int
		want string
	}{
		"/exit?code=9": {9, "the server exited with code 9: serving\nleaving"},
		"/exit?code=0": {1, "the server exited with code 0: it must stay in the foreground: serving\nleaving"},
	} {
		h := start(t, server(t)).greet()
		h.begin(get(target), "")
		if fault := h.fault(); fault.Message != test.want {
			t.Errorf("%s: got %+v", target, fault)
		}
		if code := h.exitCode(); code != test.code {
			t.Errorf("%s: exit code %d", target, code)
		}
	}
}

func TestAServerThatFailsItsChecksEndsTheGuest(t *testing.T) {
	settings := server(t)
	settings.HTTP.Live, settings.HTTP.Every = "/live", spec.Duration(100*time.Millisecond)
	h := start(t, settings).greet()
	_, busy := h.begin(get("/hang"), "")
	if _, _, fault := h.call(get("/sick"), ""); fault != nil {
		t.Fatal(fault)
	}
	for range 3 { // each takes longer than a check's turn: failures beside a request do not count
		if _, output, fault := h.call(get("/slow"), ""); output != "slow" {
			t.Fatalf("got %q, %v", output, fault)
		}
	}
	h.send(wire.TypeCancel, 1, wire.Cancel{Kind: wire.KindCancelled}, nil)
	if _, _, fault := h.await(busy); fault == nil || fault.Kind != wire.KindCancelled {
		t.Errorf("the cancelled call: %v", fault)
	}
	if fault := h.fault(); !strings.HasPrefix(fault.Message, "the server failed 3 checks in a row: GET /live: status 500") {
		t.Errorf("got %+v", fault)
	}
	if code := h.exitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

func TestACancelledCallIsCancelledInTheServer(t *testing.T) {
	h := start(t, server(t)).greet()
	number, answer := h.begin(get("/hang"), "")
	eventually.True(t, "the server has the request", func() bool { return h.logged(0, "hanging") })
	h.send(wire.TypeCancel, number, wire.Cancel{Kind: wire.KindTimeout}, nil)
	if _, _, fault := h.await(answer); fault == nil || fault.Kind != wire.KindTimeout {
		t.Errorf("got %v", fault)
	}
	eventually.True(t, "the server noticed", func() bool {
		_, output, _ := h.call(get("/cancelled"), "")
		return output == "1"
	})
}

func TestAServerIsDrained(t *testing.T) {
	for name, ignores := range map[string]bool{"at once": false, "by force": true} {
		t.Run(name, func(t *testing.T) {
			settings := server(t)
			settings.Grace = spec.Duration(100 * time.Millisecond)
			if ignores {
				settings.HTTP.Command = []string{"sh", "-c", fmt.Sprintf("trap '' TERM; %s & while :; do sleep 1; done", settings.HTTP.Command[0])}
			}
			h := start(t, settings).greet()
			_, answer := h.begin(get("/slow"), "")
			h.send(wire.TypeDrain, 0, nil, nil)
			if _, output, fault := h.await(answer); output != "slow" {
				t.Errorf("got %q, %v", output, fault)
			}
			h.next(wire.TypeDrained)
			if code := h.exitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if !ignores && !h.logged(0, "asked to stop") {
				t.Errorf("the server was not asked: %v", h.logs)
			}
		})
	}
}

func TestAFrozenServerHasNoConnections(t *testing.T) {
	h := start(t, server(t)).greet()
	for range 3 {
		if _, _, fault := h.call(get("/count"), ""); fault != nil {
			t.Fatal(fault)
		}
	}
	idle := h.open()
	h.send(wire.TypeFreeze, 0, nil, nil)
	h.next(wire.TypeFrozen)
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlived the freeze")
	}
	h.thaw("second")
	if _, output, fault := h.call(get("/count"), ""); output != "4" {
		t.Errorf("got %q, %v", output, fault)
	}
	if err := syscall.Kill(h.pid, 0); err != nil {
		t.Error(err)
	}
}
