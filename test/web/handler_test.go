package web

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// deployed deploys a program of the Go SDK until the test ends.
func deployed(t *testing.T, dir, app string) {
	t.Helper()
	if out, err := cluster.Freshet(t.Context(), "deploy", dir); err != nil {
		t.Fatalf("deploy %s: %v: %s", dir, err, out)
	}
	t.Cleanup(func() {
		if out, err := cluster.Freshet(context.Background(), "delete", app); err != nil {
			t.Errorf("delete %s: %v: %s", app, err, out)
		}
	})
}

// TestHandler sends the same to an http.Handler of the Go SDK as to a server in an image.
func TestHandler(t *testing.T) {
	deployed(t, "guest", "site")
	address := cluster.State.Gateway() + "/web/site/handler"
	t.Run("every method", func(t *testing.T) { everyMethod(t, address) })
	t.Run("bodies", func(t *testing.T) { bodies(t, address, 4<<20) })
	t.Run("both ways at once", func(t *testing.T) { bothWays(t, http.DefaultClient, address) })
	t.Run("HTTP/2", func(t *testing.T) { bothWays(t, overHTTP2(t), address) })
	t.Run("events", func(t *testing.T) { events(t, address) })
	t.Run("WebSocket", func(t *testing.T) { sockets(t, address) })
	t.Run("clients that leave", func(t *testing.T) { leave(t, address) })
	t.Run("many at once", func(t *testing.T) { manyAtOnce(t, address) })
	t.Run("a call", func(t *testing.T) {
		if response, err := cluster.Call(t, "site.handler", "", "1"); err == nil || !strings.Contains(err.Error(), "/web/site/handler/") {
			t.Errorf("%s, %v", response.Body, err)
		}
	})
	t.Run("a crash", func(t *testing.T) {
		response, text := ask(t, "POST", address+"/crash", nil)
		if kind := problem(t, response, text); kind != "crash" || !strings.Contains(text, "code 7") {
			t.Errorf("%s: %s", response.Status, text)
		}
	})
	t.Run("a thawed worker", func(t *testing.T) { thawed(t, cluster.State.Gateway()+"/web/site/open") })
	t.Run("a host name that another function has", func(t *testing.T) {
		manifest := `{"format":1,"app":"thief","functions":[{"app":"thief","name":"page","image":"any","handler":{"type":"http","port":80},"web":{"domains":["open.example.org"]}}]}`
		response, text := ask(t, "PUT", cluster.State.Gateway()+"/v1/apps/thief", strings.NewReader(manifest))
		if kind := problem(t, response, text); kind != "conflict" || !strings.Contains(text, "open.example.org is the host name of function site.open in namespace default") {
			t.Errorf("%s: %s", response.Status, text)
		}
	})
	t.Run("a host name", func(t *testing.T) {
		eventually.True(t, "open.example.org leads to the function", func() bool {
			response, err := trusting(t).Get("https://open.example.org/healthz")
			if err != nil {
				return false
			}
			return response.Body.Close() == nil && response.StatusCode == http.StatusOK
		})
	})
}

// thawed waits until the first workers have gone: the next one has what their enter hook made, and a name of its own.
func thawed(t *testing.T, address string) {
	_, first := ask(t, "GET", address+"/loaded", nil)
	eventually.True(t, "no worker is left", func() bool { return len(cluster.Workers(t, "site", "open")) == 0 })
	began := time.Now()
	_, next := ask(t, "GET", address+"/loaded", nil)
	t.Logf("answered from zero in %s", time.Since(began).Round(time.Millisecond))
	loaded, _, _ := strings.Cut(first, " ")
	if by, worker, ok := strings.Cut(next, " "); !ok || by != loaded || worker == loaded || worker == "" {
		t.Errorf("first %q, then %q", first, next)
	}
	if all := cluster.Workers(t, "site", "open"); len(all) != 1 || !all[0].Thawed {
		t.Errorf("the workers are %+v", all)
	}
}

// TestExample deploys the example and looks at its page, its events and its answer to what is posted.
func TestExample(t *testing.T) {
	deployed(t, filepath.Join("..", "..", "examples", "web"), "example")
	address := cluster.State.Gateway() + "/web/example/site"
	if response, text := ask(t, "GET", address+"/", nil); response.StatusCode != http.StatusOK || !strings.Contains(text, "EventSource") {
		t.Errorf("%s: %s", response.Status, text)
	}
	if response, text := ask(t, "GET", address+"/clock?ticks=3", nil); response.Header.Get("Content-Type") != "text/event-stream" || strings.Count(text, "data: ") != 3 {
		t.Errorf("%v: %s", response.Header, text)
	}
	if _, text := ask(t, "POST", address+"/count", strings.NewReader("one two two")); text != "3 words, 2 of them different\n" {
		t.Errorf("%q", text)
	}
}
