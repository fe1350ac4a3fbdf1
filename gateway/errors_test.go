package gateway_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// problem is an error as the API writes it.
type problem struct {
	Error struct {
		Kind, Message, Type, Traceback string
		Near                           []string
	}
}

func problemOf(t *testing.T, a answer) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("the error is no JSON: %q", a.body)
	}
	return p
}

func TestBadRequestsAreToldWhatToMend(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	for name, test := range map[string]struct {
		method, path string
		header       http.Header
		body         []byte
		status       int
		says         string
	}{
		"unknown function": {"POST", "/v1/functions/demo/ecko/call", nil, nil, 404, "demo.ecko"},
		"unknown path":     {"GET", "/v3/nothing", nil, nil, 404, "/v3/nothing"},
		"wrong method":     {"GET", callEcho, nil, nil, 405, "POST"},
		"bad timeout":      {"POST", callEcho, http.Header{"Freshet-Timeout": {"soon"}}, nil, 400, "Freshet-Timeout"},
		"long key":         {"POST", callEcho, http.Header{"Idempotency-Key": {strings.Repeat("x", 300)}}, nil, 400, "Idempotency-Key"},
		"unknown query":    {"POST", callEcho + "?metod=x", nil, nil, 400, "metod"},
		"bad digest":       {"PUT", "/v1/blobs/abc", nil, nil, 400, "64 lower-case hex"},
		"missing blob":     {"GET", "/v1/blobs/" + strings.Repeat("a", 64), nil, nil, 404, "upload"},
		"bad manifest":     {"PUT", "/v1/apps/demo", nil, []byte(`{"format":1,"app":"demo","functions":[{"app":"demo","name":"a","timout":"1s"}]}`), 400, "timout"},
		"invalid function": {"PUT", "/v1/apps/demo", nil, []byte(`{"format":1,"app":"demo","functions":[{"app":"demo","name":"a","concurrency":-1}]}`), 400, "concurrency"},
		"delete unknown":   {"DELETE", "/v1/apps/dema", nil, nil, 404, "dema"},
		"bad tail":         {"GET", "/v1/functions/demo/echo/logs?tail=x", nil, nil, 400, "tail"},
	} {
		t.Run(name, func(t *testing.T) {
			got := g.do(t, test.method, test.path, test.body, test.header)
			if got.status != test.status || !strings.Contains(string(got.body), test.says) {
				t.Errorf("got %d %s; want %d naming %q", got.status, got.body, test.status, test.says)
			}
			if p := problemOf(t, got); p.Error.Kind == "" || got.header.Get("Freshet-Error") != p.Error.Kind {
				t.Errorf("kind %q, header %q", p.Error.Kind, got.header.Get("Freshet-Error"))
			}
		})
	}
	if near := problemOf(t, g.do(t, "POST", "/v1/functions/demo/ecko/call", nil, nil)).Error.Near; len(near) != 1 || near[0] != "demo.echo" {
		t.Errorf("near names %v, want demo.echo", near)
	}
}

func TestCallErrorsHaveTheirStatus(t *testing.T) {
	for kind, status := range map[wire.Kind]int{
		wire.KindUser: 500, wire.KindInput: 400, wire.KindTimeout: 504, wire.KindExpired: 504, wire.KindCrash: 502,
		wire.KindMemory: 502, wire.KindProtocol: 502, wire.KindLost: 502, wire.KindStart: 503, wire.KindCancelled: 499,
	} {
		t.Run(string(kind), func(t *testing.T) {
			nats := startNATS(t, t.TempDir(), 0)
			g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
			startWorker(t, nats.ClientURL(), 1, failing(kind))
			got := g.do(t, http.MethodPost, callEcho, nil, nil)
			p := problemOf(t, got)
			if got.status != status || p.Error.Kind != string(kind) || p.Error.Type != "*demo.Error" || p.Error.Traceback != "main.go" {
				t.Errorf("got %d %+v, want %d", got.status, p, status)
			}
		})
	}
}

func TestFullQueueIsRefused(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo()), func(c *gateway.Config) { c.Streams.MaxPending = 1 }).up(t)
	first := make(chan answer, 1)
	go func() {
		a, _ := g.try(t.Context(), http.MethodPost, callEcho, nil, http.Header{"Freshet-Timeout": {"10s"}})
		first <- a
	}()
	eventually.True(t, "the first call is queued", func() bool { return pending(t, g) == 1 })
	second := g.do(t, http.MethodPost, callEcho, nil, http.Header{"Freshet-Timeout": {"5s"}})
	if second.status != http.StatusTooManyRequests || second.header.Get("Retry-After") == "" {
		t.Errorf("the second call got %d %s", second.status, second.body)
	}
	startWorker(t, nats.ClientURL(), 1, nil)
	if a := <-first; a.status != http.StatusOK {
		t.Errorf("the first call got %d %s", a.status, a.body)
	}
}

func TestNobodyAnswersInTime(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	got := g.do(t, http.MethodPost, callEcho, nil, http.Header{"Freshet-Timeout": {"100ms"}})
	if got.status != http.StatusGatewayTimeout || problemOf(t, got).Error.Kind != string(wire.KindExpired) {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestLostReplyIsFoundInTheStore(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	w := startWorker(t, nats.ClientURL(), 1, nil)
	w.mute.Store(true)
	if got := g.do(t, http.MethodPost, callEcho, []byte("x"), nil); got.status != http.StatusOK || string(got.body) != "x" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestKeyedCallRunsOnceAlsoThroughAnotherGateway(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	first := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	second := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	key := http.Header{"Idempotency-Key": {"k1"}}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = first.try(t.Context(), http.MethodPost, callEcho, []byte("once"), key)
	}()
	eventually.True(t, "the call is queued", func() bool { return pending(t, second) == 1 })
	first.close() // in the middle of the call
	<-gone
	answers := make(chan answer, 1)
	go func() {
		a, _ := second.try(t.Context(), http.MethodPost, callEcho, []byte("once"), key)
		answers <- a
	}()
	w := startWorker(t, nats.ClientURL(), 1, nil)
	if a := <-answers; a.status != http.StatusOK || string(a.body) != "once" {
		t.Errorf("through the second gateway: %d %s", a.status, a.body)
	}
	again := second.do(t, http.MethodPost, callEcho, []byte("once"), key)
	if again.status != http.StatusOK || w.ran.Load() != 1 {
		t.Errorf("again: %d; the call ran %d times", again.status, w.ran.Load())
	}
}

func pending(t *testing.T, g *rig) int64 {
	t.Helper()
	var views []struct{ Pending int64 }
	if err := json.Unmarshal(g.do(t, http.MethodGet, "/v1/functions", nil, nil).body, &views); err != nil || len(views) != 1 {
		t.Fatalf("functions: %v", err)
	}
	return views[0].Pending
}

func TestDemandIsHintedWhenNoWorkerIsFree(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	hints, err := g.nc.SubscribeSync(queue.AllDemand)
	if err != nil {
		t.Fatal(err)
	}
	_ = g.do(t, http.MethodPost, callEcho, nil, http.Header{"Freshet-Timeout": {"10ms"}})
	if _, err := hints.NextMsg(patience); err != nil {
		t.Fatalf("no hint: %v", err)
	}
}

func TestDeployChecksThenRegisters(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	into := &registered{}
	into.put(jobs.Job{ID: "demo.old", Spec: spec.Function{App: "demo", Name: "old"}})
	g := newRig(t, nats.ClientURL(), functions(spec.Function{App: "demo", Name: "old"}), func(c *gateway.Config) { c.Jobs = into }).up(t)
	program := []byte("program")
	sum := sha256.Sum256(program)
	digest := hex.EncodeToString(sum[:])
	manifest, err := json.Marshal(spec.Manifest{Format: spec.ManifestVersion, App: "demo", Functions: []spec.Function{
		{App: "demo", Name: "new", Config: spec.Config{Handler: &spec.Handler{Type: "go"}, Code: "sha256:" + digest}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := g.do(t, http.MethodPut, "/v1/apps/demo", manifest, nil); got.status != 400 || len(into.functions) != 0 {
		t.Fatalf("without its code: %d, registered %d", got.status, len(into.functions))
	}
	if got := g.do(t, http.MethodPut, "/v1/blobs/"+digest, program, nil); got.status != http.StatusCreated {
		t.Fatalf("upload: %d %s", got.status, got.body)
	}
	if got := g.do(t, http.MethodGet, "/v1/blobs/"+digest, nil, nil); !bytes.Equal(got.body, program) {
		t.Fatalf("download: %q", got.body)
	}
	if got := g.do(t, http.MethodPut, "/v1/apps/demo", manifest, nil); got.status != http.StatusOK {
		t.Fatalf("deploy: %d %s", got.status, got.body)
	}
	if len(into.functions) != 1 || into.functions[0].Name != "new" || len(into.stopped) != 1 || into.stopped[0] != "demo.old" {
		t.Errorf("registered %v, stopped %v", into.functions, into.stopped)
	}
}

func TestLogsAreServedAndFollowed(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	for _, text := range []string{"one", "two"} {
		data, err := json.Marshal(queue.LogRecord{Time: time.Now(), Alloc: "a", Source: "guest", Call: text, Text: text})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.nc.Publish(echoKey().LogsSubject("a"), data); err != nil {
			t.Fatal(err)
		}
	}
	eventually.True(t, "both lines are served", func() bool {
		got := g.do(t, http.MethodGet, "/v1/functions/demo/echo/logs", nil, nil)
		return strings.Count(string(got.body), "\n") == 2
	})
	got := g.do(t, http.MethodGet, "/v1/functions/demo/echo/logs?call=two", nil, nil)
	if !strings.Contains(string(got.body), "two") || strings.Contains(string(got.body), "one") {
		t.Errorf("logs of one call: %s", got.body)
	}
}
