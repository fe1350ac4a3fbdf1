package web

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
)

func TestNoEndpoint(t *testing.T) {
	for _, path := range []string{"/web/", "/web/no", "/web/no/such", "/web/no/such/path", "/web/a%2Fb/c/"} {
		response, text := ask(t, "GET", cluster.State.Gateway()+path, nil)
		if kind := problem(t, response, text); kind != "not_found" || response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, %s", path, response.Status, kind)
		}
	}
}

// TestWorkersThatEnd tells what clients read when the server or its whole worker ends under their requests.
func TestWorkersThatEnd(t *testing.T) {
	address := deploy(t, "crash", `timeout     = "60s"`, `timeout     = "3s"`)
	t.Run("before the answer", func(t *testing.T) {
		response, text := ask(t, "POST", address+"/crash", strings.NewReader("x"))
		if kind := problem(t, response, text); kind != "crash" || response.StatusCode != http.StatusBadGateway || !strings.Contains(text, "code 7") {
			t.Errorf("%s: %s", response.Status, text)
		}
	})
	t.Run("in the answer", func(t *testing.T) {
		response, err := http.Post(address+"/crash?when=midway", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }() // it was read
		if text, err := io.ReadAll(response.Body); err == nil || string(text) != "half of " {
			t.Errorf("an answer that broke off reads as %q, %v", text, err)
		}
	})
	t.Run("the next one", func(t *testing.T) {
		if response, text := ask(t, "POST", address+"/echo/", nil); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", response.Status, text)
		}
	})
	t.Run("a server that says nothing", func(t *testing.T) {
		response, text := ask(t, "GET", address+"/hang?for=1h", nil)
		if kind := problem(t, response, text); kind != "timeout" || response.StatusCode != http.StatusGatewayTimeout || !strings.Contains(text, "3s") {
			t.Errorf("%s: %s", response.Status, text)
		}
	})
	t.Run("the supervisor is killed", func(t *testing.T) { killed(t, address) })
}

// TestScale tells that open requests make workers and keep them, and that none is cut short when workers go.
func TestScale(t *testing.T) {
	address := deploy(t, "scale", append(soon(), `concurrency = 4`, `concurrency = 1`)...)
	var asking sync.WaitGroup
	for range 3 {
		asking.Go(func() {
			if response, text := ask(t, "GET", address+"/hang?for=4s", nil); response.StatusCode != http.StatusOK || text != "waited 4s" {
				t.Errorf("%s: %s", response.Status, text)
			}
		})
	}
	eventually.True(t, "three workers have a request each", func() bool { return busy(t, address) == 3 && len(workers(t, "scale")) == 3 })
	asking.Wait()
	gone(t, "scale")
}

// TestStopUnderRequests stops the job and sees that what runs ends as it would.
func TestStopUnderRequests(t *testing.T) {
	address := deploy(t, "stop")
	answered := make(chan string, 1)
	go func() {
		response, text := ask(t, "GET", address+"/hang?for=3s", nil)
		answered <- fmt.Sprint(response.StatusCode, " ", text)
	}()
	eventually.True(t, "the request runs", func() bool { return busy(t, address) == 1 })
	if out, err := cluster.Nomad(t.Context(), "job", "stop", "-detach", "web.stop"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := <-answered; got != "200 waited 3s" {
		t.Errorf("a request that ran when its job was stopped: %s", got)
	}
	eventually.True(t, "the endpoint is gone", func() bool {
		response, _ := ask(t, "GET", address+"/echo/", nil)
		return response.StatusCode == http.StatusNotFound
	})
}

// killed kills the supervisor under two requests: the one that may be sent twice is.
func killed(t *testing.T, address string) {
	type answer struct{ status, text, kind string }
	answers := make(map[string]answer)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, method := range []string{"GET", "POST"} {
		asking.Go(func() {
			response, text := ask(t, method, address+"/hang?for=2s", nil)
			got := answer{status: response.Status, text: text}
			if response.StatusCode != http.StatusOK {
				got.kind = problem(t, response, text)
			}
			mu.Lock()
			defer mu.Unlock()
			answers[method] = got
		})
	}
	eventually.True(t, "both requests run", func() bool { return busy(t, address) == 2 })
	for _, pid := range processes(t, "freshet-worker") {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	asking.Wait()
	if got := answers["GET"]; got.text != "waited 2s" {
		t.Errorf("a GET whose worker was killed: %+v", got)
	}
	if got := answers["POST"]; got.kind != "lost" || !strings.HasPrefix(got.status, "502") {
		t.Errorf("a POST whose worker was killed: %+v", got)
	}
}
