package calls

import (
	"context"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
)

// mapWay is a way to map.
type mapWay = func(context.Context, client.Request, iter.Seq[[]byte], int) iter.Seq2[client.Item, error]

// cutter passes connections on to an address, and cuts them all when it is told.
type cutter struct {
	net.Listener
	to      string
	running sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &cutter{Listener: listener, to: to, open: make(map[net.Conn]struct{})}
	w.running.Go(w.serve)
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		w.cut()
		w.running.Wait()
	})
	return w
}

func (w *cutter) serve() {
	for {
		in, err := w.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to)
		if err != nil { // the gateway is away just now
			_ = in.Close()
			continue
		}
		w.mu.Lock()
		w.open[in], w.open[out] = struct{}{}, struct{}{}
		w.mu.Unlock()
		w.running.Go(func() { w.pass(in, out) })
		w.running.Go(func() { w.pass(out, in) })
	}
}

func (w *cutter) pass(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = from.Close(), to.Close()
}

func (w *cutter) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for connection := range w.open {
		_ = connection.Close()
	}
	clear(w.open)
}

// gatewayPID finds the gateway's process.
func gatewayPID(t *testing.T) int {
	t.Helper()
	found := 0
	eventually.True(t, "the gateway runs", func() bool {
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			args := strings.Split(string(data), "\x00")
			if err != nil || len(args) < 2 || args[0] != shared.program() || args[1] != "gateway" || !strings.Contains(string(data), shared.dir) {
				continue
			}
			found, err = strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return err == nil
		}
		return false
	})
	return found
}

// TestMapOfTheClientSurvivesCutsAndAGatewaysEnd: each item is answered once, in the order that was asked for, whatever breaks between.
func TestMapOfTheClientSurvivesCutsAndAGatewaysEnd(t *testing.T) {
	const count = 6000
	for name, way := range map[string]func(*client.Client) mapWay{
		"in order":       func(c *client.Client) mapWay { return c.Map },
		"as they finish": func(c *client.Client) mapWay { return c.MapUnordered },
	} {
		t.Run(name, func(t *testing.T) {
			between := newCutter(t, strings.TrimPrefix(shared.state.Gateway(), "http://"))
			c := client.New("http://"+between.Addr().String(), client.Token(shared.state.Token))
			inputs := func(yield func([]byte) bool) {
				for i := range count {
					if !yield([]byte(strconv.Itoa(i))) {
						return
					}
				}
			}
			seen := make(map[int]bool)
			for item, err := range way(c)(t.Context(), client.Request{Function: "calls.echo"}, inputs, 128) {
				if err != nil {
					t.Fatal(err)
				}
				if item.Err != nil || string(item.Response.Body) != strconv.Itoa(item.Index) || seen[item.Index] {
					t.Fatalf("item %d: %s, %v, again: %v", item.Index, item.Response.Body, item.Err, seen[item.Index])
				}
				if name == "in order" && item.Index != len(seen) {
					t.Fatalf("item %d after %d others", item.Index, len(seen))
				}
				seen[item.Index] = true
				switch len(seen) {
				case 1000, 2000, 3000:
					between.cut()
				case 4000:
					if err := syscall.Kill(gatewayPID(t), syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
			}
			if len(seen) != count {
				t.Errorf("%d of %d items", len(seen), count)
			}
		})
	}
}
