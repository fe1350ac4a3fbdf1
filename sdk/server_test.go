package freshet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// shout answers each line until its client or the worker ends.
func shout(ctx context.Context, l net.Listener) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		serving.Go(func() {
			defer func() { _ = conn.Close() }()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				fmt.Fprintln(conn, strings.ToUpper(lines.Text()))
			}
		})
	}
}

func TestServer(t *testing.T) {
	app := New("test")
	var exited bool
	Server(app, "shout", shout, Exit(func(context.Context) error { exited = true; return nil }))
	h := serve(t, app)
	h.send(wire.TypeHello, 0, wire.Hello{MinVersion: 1, Version: 1, Entry: "shout"}, "")
	var welcome wire.Welcome
	if msg := h.next(wire.TypeWelcome); msg.DecodeMeta(&welcome) != nil || !welcome.Streams {
		t.Errorf("greeted with %+v", welcome)
	}
	h.next(wire.TypeReady)
	h.send(wire.TypeOpen, 1, nil, "")
	h.next(wire.TypeOpened)
	h.send(wire.TypeData, 1, nil, "hello\n")
	if got := h.next(wire.TypeGuestData); string(got.Payload) != "HELLO\n" || got.Call != 1 {
		t.Errorf("%d: %q", got.Call, got.Payload)
	}
	h.send(wire.TypeCall, 7, attempt("a"), "1")
	if got := h.fault(wire.TypeFailure); got.Kind != wire.KindInput || !strings.Contains(got.Message, "/web/test/shout/") {
		t.Errorf("a call: %+v", got)
	}
	h.send(wire.TypeData, 1, nil, "last\n")
	h.next(wire.TypeGuestData)
	h.send(wire.TypeEnd, 1, nil, "")
	h.next(wire.TypeGuestClose)
	h.send(wire.TypeDrain, 0, nil, "")
	h.next(wire.TypeDrained)
	if err := h.end(); err != nil || !exited {
		t.Errorf("ended with %v, exit hook: %v", err, exited)
	}
}

// TestServerThatEnds: a worker without its server is none.
func TestServerThatEnds(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(context.Context, net.Listener) error
		want string
	}{
		"fails":   {func(context.Context, net.Listener) error { return errors.New("no luck") }, "no luck"},
		"returns": {func(context.Context, net.Listener) error { return nil }, "returned before"},
		"panics":  {func(context.Context, net.Listener) error { panic("at once") }, "at once"},
	} {
		t.Run(name, func(t *testing.T) {
			app := New("test")
			Server(app, "server", c.run)
			h := serve(t, app).greet("server")
			if got := h.fault(wire.TypeFailed); !strings.Contains(got.Message, c.want) {
				t.Errorf("told %+v", got)
			}
			if err := h.end(); !errors.Is(err, errServed) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestFunctionWithoutServer(t *testing.T) {
	app := New("test")
	Func(app, "plain", func(_ context.Context, s string) (string, error) { return s, nil })
	h := serve(t, app).greet("plain")
	h.send(wire.TypeOpen, 1, nil, "")
	if got := h.fault(wire.TypeGuestClose); !strings.Contains(got.Message, "web.Handle") {
		t.Errorf("told %+v", got)
	}
}
