// Package web tests web endpoints through the whole system: real clients, the gateway, NATS, Nomad and gVisor.
package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/jobspecs"
	"github.com/freshet-dev/freshet/test/hostile/world"
)

var cluster *world.Cluster

func TestMain(m *testing.M) {
	os.Exit(world.Inside(func() int { return world.Run(m, func(c *world.Cluster) { cluster = c }, "--tls", secure) }))
}

// seen is a request as the server in the sandbox saw it.
type seen struct {
	Method, Target, Host, Body string
	Header, Trailer            http.Header
}

// deploy runs the tests' server as a function web.NAME, as the jobspec to copy with some changes, and returns its address.
func deploy(t *testing.T, name string, changes ...string) string {
	t.Helper()
	text, err := jobspecs.Template("http")
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	changes = append(changes, "    count = 0\n", "    count = 0\n"+restart,
		`job "web.api"`, `job "web.`+name+`"`, `"freshet.function" = "api"`, `"freshet.function" = "`+name+`"`)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(changed, changes[i]) {
			t.Fatalf("the jobspec does not hold %q", changes[i])
		}
		changed = strings.ReplaceAll(changed, changes[i], changes[i+1])
	}
	image := world.Image(t, []string{"/bin/guest"}, map[string]string{"bin/guest": world.Build(t, "guest")})
	cluster.RunJob(t, changed, "image="+image)
	cluster.Known(t, "web."+name)
	return cluster.State.Gateway() + "/web/web/" + name
}

// restart is in place of Nomad's own pauses, which are 15 s and more.
const restart = `
    restart {
      attempts = 10
      interval = "30s"
      delay    = "250ms"
      mode     = "fail"
    }
`

// soon makes workers go when they are not needed.
func soon() []string { return []string{`scaledown_window = "60s"`, `scaledown_window = "1s"`} }

// ask sends a request and reads the answer.
func ask(t *testing.T, method, address string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, address, err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, address, err)
	}
	return response, string(text)
}

// problem is the kind of a problem document.
func problem(t *testing.T, response *http.Response, body string) string {
	t.Helper()
	var document struct {
		Type   string
		Status int
		Error  struct{ Kind, Message string }
	}
	if err := json.Unmarshal([]byte(body), &document); err != nil || document.Status != response.StatusCode || document.Error.Message == "" ||
		document.Type != "urn:freshet:problem:"+document.Error.Kind || response.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%s is no problem: %v: %s", response.Status, err, body)
	}
	return document.Error.Kind
}

// left is how many clients the server saw leave.
func left(t *testing.T, address string) int {
	t.Helper()
	_, text := ask(t, http.MethodGet, address+"/left", nil)
	count := 0
	if _, err := fmt.Sscan(text, &count); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return count
}

// workers are those of web.NAME.
func workers(t *testing.T, name string) []queue.Heartbeat {
	t.Helper()
	return cluster.Workers(t, "web", name)
}

// gone waits until web.NAME has no worker.
func gone(t *testing.T, name string) {
	t.Helper()
	eventually.True(t, "web."+name+" has no worker", func() bool { return len(workers(t, name)) == 0 })
}

// processes are the cluster's, by the end of their program's name, or by that and their first argument after a NUL.
func processes(t *testing.T, name string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, file := range files {
		args, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(args, []byte("/"+name+"\x00")) || !bytes.Contains(args, []byte(cluster.Dir)) {
			continue // of another cluster, or it ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, pid)
	}
	return found
}
