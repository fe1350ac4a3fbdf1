package gateway_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/internal/secrets"
	"github.com/freshet-dev/freshet/internal/volumes"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// faultRig is a gateway with something of everything that its routes are about.
type faultRig struct {
	*rig

	operations []operation
	registered *registered
	// blobs and volumes are the folders that hold them.
	blobs, volumes string
	// Tokens: one that may all, and those that are at fault.
	all, expired, verbless, foreign, foreignFunction string
	// fill are the parts of paths that name what there is, by their names.
	fill map[string]string
}

const (
	faultPayload = 2 << 20
	faultWait    = 500 * time.Millisecond
	// oldID is of 2016, long before the time that any result is kept.
	oldID     = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	unknownID = "01M888PRN6KT6CMZ0QP0000000"
)

func newFaultRig(t *testing.T) *faultRig {
	t.Helper()
	f := &faultRig{registered: &registered{}, blobs: t.TempDir(), volumes: t.TempDir()}
	nats := startNATS(t, t.TempDir(), 0).ClientURL()
	store, err := blobs.Open(t.Context(), "file://"+f.blobs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	shared, err := volumes.Open(f.volumes)
	if err != nil {
		t.Fatal(err)
	}
	full := spec.Function{App: "demo", Name: "full"}
	site := spec.Function{App: "demo", Name: "site", Config: spec.Config{Handler: &spec.Handler{Type: "http"}, Web: spec.Web{Enabled: true}}}
	f.rig = newRig(t, nats, functions(echo(), full, site), func(c *gateway.Config) {
		c.Auth, c.RootToken, c.Blobs, c.Jobs, c.Secrets = true, rootToken, store, f.registered, secrets.New(nomadtest.Start(t))
		c.MaxPayload, c.BodyWait, c.Volumes = faultPayload, faultWait, shared
	}).up(t)
	startWorker(t, nats, 8, nil)
	f.operations = operations(loadDocument(t, f.rig))
	every := `"verbs":["call","read","deploy","secret","volume","exec","admin"]`
	f.all = f.makeToken(t, `{"name":"all",`+every+`}`).Token
	f.verbless = f.makeToken(t, `{"name":"verbless","verbs":["call"]}`).Token
	f.foreign = f.makeToken(t, `{"name":"foreign","namespaces":["prod"],`+every+`}`).Token
	f.foreignFunction = f.makeToken(t, `{"name":"foreign","functions":["demo.other"],`+every+`}`).Token
	short := f.makeToken(t, `{"name":"short","ttl":"1s",`+every+`}`)
	f.expired = short.Token
	f.populate(t)
	eventually.True(t, "the short token expires", func() bool { return time.Now().After(short.Expires) })
	return f
}

// populate makes what the paths of the rows name.
func (f *faultRig) populate(t *testing.T) {
	t.Helper()
	as := bearer(f.all)
	keyed := bearer(f.all)
	keyed.Set("Idempotency-Key", "taken")
	if a := f.do(t, http.MethodPost, callEcho, []byte("1"), keyed); a.status != http.StatusOK {
		t.Fatalf("call: %d %s", a.status, a.body)
	}
	keyed.Set("Idempotency-Key", "spawned")
	call := f.show(t, http.MethodPost, spawnEcho, []byte("1"), keyed, http.StatusAccepted).Call
	eventually.True(t, "the call has ended", func() bool {
		return f.do(t, http.MethodGet, "/v1/calls/"+call+"/result", nil, as).status == http.StatusOK
	})
	waiting := f.show(t, http.MethodPost, "/v1/functions/demo/full/spawn", []byte("1"), as, http.StatusAccepted).Call
	if a := f.do(t, http.MethodPost, "/v1/calls/"+waiting+"/cancel", nil, as); a.status != http.StatusOK {
		t.Fatalf("cancel: %d %s", a.status, a.body)
	}
	batch := f.do(t, http.MethodPost, batchEcho, []byte("1\n2\n"), as)
	if batch.status != http.StatusAccepted {
		t.Fatalf("batch: %d %s", batch.status, batch.body)
	}
	program := []byte("program")
	sum := sha256.Sum256(program)
	digest := hex.EncodeToString(sum[:])
	for _, c := range []struct{ method, path, body string }{
		{"PUT", scheduleEcho, `{"every":"24h"}`},
		{"PUT", "/v1/blobs/" + digest, string(program)},
		{"PUT", "/v1/secrets/db", `{"values":{"A":"b"}}`},
		{"PUT", "/v1/volumes/models", ""},
		{"PUT", "/v1/volumes/models/content?path=kept", "kept"},
		{"PUT", "/v1/apps/shop", `{"format":1,"app":"shop","functions":[]}`},
	} {
		if a := f.do(t, c.method, c.path, []byte(c.body), as); a.status/100 != 2 {
			t.Fatalf("%s %s: %d %s", c.method, c.path, a.status, a.body)
		}
	}
	f.fill = map[string]string{
		"call": call, "waiting": waiting, "batch": batch.header.Get("Freshet-Batch"), "digest": digest,
		"token": f.makeToken(t, `{"name":"subject","verbs":["read"]}`).ID,
	}
}

// path fills the path of an operation with what there is.
func (f *faultRig) path(o operation) string {
	id := f.fill["call"]
	if strings.HasPrefix(o.path, "/v1/batches/") {
		id = f.fill["batch"]
	}
	app := "demo"
	if strings.HasPrefix(o.path, "/v1/apps/") {
		app = "shop"
	}
	name := "tick"
	if strings.HasPrefix(o.path, "/v1/secrets/") {
		name = "db"
	}
	if strings.HasPrefix(o.path, "/v1/volumes/") {
		name = "models"
	}
	return strings.NewReplacer("{app}", app, "{function}", "echo", "{id}", id, "{digest}", f.fill["digest"], "{token}", f.fill["token"],
		"{name}", name, "{image}", "none", "{path}", "").Replace(o.path)
}

// state is what must be as before when everything was refused.
type state struct {
	Streams map[string]uint64
	Keys    []string
	Files   []string
	Jobs    int
}

func (f *faultRig) state(t *testing.T) state {
	t.Helper()
	now := state{Streams: make(map[string]uint64)}
	streams := f.js(t).ListStreams(t.Context())
	for info := range streams.Info() {
		now.Streams[info.Config.Name] = info.State.Msgs
	}
	if streams.Err() != nil {
		t.Fatal(streams.Err())
	}
	for _, name := range []string{queue.TokensBucket, queue.DeploysBucket, queue.KeysBucket} {
		delete(now.Streams, "KV_"+name) // whose keys are looked at below
	}
	for _, name := range []string{queue.TokensBucket, queue.DeploysBucket, queue.SchedulesBucket, queue.KeysBucket} {
		bucket, err := f.js(t).KeyValue(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := bucket.ListKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for key := range keys.Keys() {
			if !strings.HasSuffix(key, ".used") && key != "payloads-swept" { // which are written now and then
				now.Keys = append(now.Keys, name+" "+key)
			}
		}
	}
	slices.Sort(now.Keys)
	for _, dir := range []string{f.blobs, f.volumes} {
		if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				now.Files = append(now.Files, path)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	f.registered.mu.Lock()
	defer f.registered.mu.Unlock()
	now.Jobs = len(f.registered.there)
	return now
}

// goroutines are the gateway's own, those that serve requests among them.
func goroutines() (count int, stacks string) {
	all := make([]byte, 8<<20)
	for _, stack := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if strings.Contains(stack, "freshet/gateway.") {
			count++
			stacks += stack + "\n\n"
		}
	}
	return count, stacks
}

// raw sends bytes on a connection of its own and reads the answer, or hangs up at once.
func (f *faultRig) raw(t *testing.T, request string, hangUp bool) answer {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", f.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, request); err != nil && !hangUp {
		t.Fatal(err)
	}
	if hangUp {
		return answer{}
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, body}
}

// wants checks the status and the kind of an answer, and that it is as the document says.
func (f *faultRig) wants(t *testing.T, o operation, fault string, a answer, status int, kind string) {
	t.Helper()
	var said struct {
		Type  string
		Error struct{ Kind string }
	}
	if kind != "" && (json.Unmarshal(a.body, &said) != nil || said.Type != "urn:freshet:problem:"+kind || a.header.Get("Content-Type") != "application/problem+json") ||
		a.status != status {
		t.Errorf("%s, %s: %d %.300s; want %d %s", o.name(), fault, a.status, a.body, status, kind)
	}
}

// TestEveryFaultAtEveryRoute sends each fault to each route that can have it: it gets its documented problem, and nothing half done
// stays. A route without the rows that it needs fails the test.
func TestEveryFaultAtEveryRoute(t *testing.T) {
	f := newFaultRig(t)
	rows := faultRows(f)
	var before state
	eventually.True(t, "the rig is at rest", func() bool {
		last := before
		before = f.state(t)
		return cmp.Equal(last, before)
	})
	var running int
	eventually.True(t, "no request runs", func() bool { last := running; running, _ = goroutines(); return last == running })
	for _, o := range f.operations {
		if !strings.HasPrefix(o.path, "/v1/") && !strings.HasPrefix(o.path, "/web/") {
			continue // health, metrics and the document take everything
		}
		f.everywhere(t, o)
		f.tokens(t, o)
		f.bodies(t, o)
		f.listed(t, o, rows[o.name()])
		delete(rows, o.name())
	}
	for name := range rows {
		t.Errorf("rows for %s, which is no route", name)
	}
	var after state
	t.Cleanup(func() {
		if diff := cmp.Diff(before, after); diff != "" {
			t.Log("what stays:", diff)
		}
	})
	eventually.True(t, "nothing half done stays", func() bool { after = f.state(t); return cmp.Equal(before, after) })
	var now int
	var stacks string
	t.Cleanup(func() {
		if now > running {
			t.Logf("%d goroutines, %d before: %s", now, running, stacks)
		}
	})
	eventually.True(t, "no request runs on", func() bool { now, stacks = goroutines(); return now <= running })
	f.brokenBatches(t)
}

// everywhere are the faults that every route can have: a verb and a parameter that there are not, and parts of a path.
func (f *faultRig) everywhere(t *testing.T, o operation) {
	t.Helper()
	path := f.path(o)
	if strings.HasPrefix(path, "/web/") {
		return // its verbs and parameters are the function's
	}
	a := f.do(t, http.MethodPatch, path, nil, bearer(f.all))
	f.wants(t, o, "wrong verb", a, http.StatusMethodNotAllowed, "not_allowed")
	if allow := strings.Split(a.header.Get("Allow"), ", "); !slices.Contains(allow, o.method) {
		t.Errorf("%s, wrong verb: Allow says %v", o.name(), allow)
	}
	f.wants(t, o, "unknown parameter", f.do(t, o.method, path+"?no-such=1", nil, bearer(f.all)), http.StatusBadRequest, "input")
	f.wants(t, o, "broken query", f.do(t, o.method, path+"?a=%zz", nil, bearer(f.all)), http.StatusBadRequest, "input")
	for _, name := range o.query() {
		query := "?" + name + "=true&" + name + "=true"
		f.wants(t, o, name+" twice", f.do(t, o.method, path+query, nil, bearer(f.all)), http.StatusBadRequest, "input")
	}
}

// tokens are the faults of who asks.
func (f *faultRig) tokens(t *testing.T, o operation) {
	t.Helper()
	path, proxied := f.path(o), http.Header{"Freshet-Key": {"abcdefghijkl"}, "Freshet-Secret": {"x"}}
	if strings.HasPrefix(path, "/web/") {
		path = "/web/demo/site/"
	}
	for fault, header := range map[string]http.Header{
		"no token": nil, "forged token": bearer(f.all[:len(f.all)-1] + "0"), "forged id and secret": proxied, "another scheme": {"Authorization": {"Basic eDp5"}},
	} {
		a := f.do(t, o.method, path, []byte("{"), header)
		f.wants(t, o, fault, a, http.StatusUnauthorized, "unauthorized")
		if a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s, %s: nothing says how to show one", o.name(), fault)
		}
	}
	f.wants(t, o, "expired token", f.do(t, o.method, path, []byte("{"), bearer(f.expired)), http.StatusUnauthorized, "token_expired")
	if !strings.HasPrefix(o.path, "/web/") && !callsOnly(o) {
		f.wants(t, o, "another verb's token", f.do(t, o.method, path, []byte("{"), bearer(f.verbless)), http.StatusForbidden, "forbidden")
	}
	if inNoNamespace(o) {
		return
	}
	f.wants(t, o, "foreign namespace", f.do(t, o.method, path, []byte("{"), bearer(f.foreign)), http.StatusForbidden, "forbidden")
	f.wants(t, o, "foreign function", f.do(t, o.method, path, []byte("{"), bearer(f.foreignFunction)), http.StatusForbidden, "forbidden")
}

// callsOnly tells the routes that the verb call is enough for.
func callsOnly(o operation) bool {
	last := o.path[strings.LastIndex(o.path, "/")+1:]
	return o.method == http.MethodPost && slices.Contains([]string{"call", "spawn", "batch", "map", "stream", "cancel", "replay", "run"}, last) ||
		o.name() == "DELETE /v1/dead/{id}"
}

// inNoNamespace tells the routes of what belongs to nobody, and those whose rows name no call that there is.
func inNoNamespace(o operation) bool {
	for _, prefix := range []string{"/v1/blobs/", "/v1/dead/", "/v1/tokens", "/v1/workers/"} {
		if strings.HasPrefix(o.path, prefix) {
			return o.path != "/v1/tokens/{token}" && o.path != "/v1/tokens/{token}/rotate"
		}
	}
	return strings.HasPrefix(o.path, "/v1/images") && o.path != "/v1/images/builds" && o.method == http.MethodGet
}

// bodies are the faults of bodies: too large, broken off, too slow.
func (f *faultRig) bodies(t *testing.T, o operation) {
	t.Helper()
	if o.body() == "" {
		return
	}
	path := f.path(o)
	if o.path == "/v1/blobs/{digest}" {
		path = "/v1/blobs/" + strings.Repeat("a", 64) // one that is there is not read
	}
	if strings.HasPrefix(o.path, "/v1/volumes/") {
		path += "?path=file"
	}
	head := func(length string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s\r\n\r\n", o.method, path, f.all, length)
	}
	if o.body() == "application/x-ndjson" {
		return // it comes in its own time, and is taken line by line: see brokenBatches
	}
	f.wants(t, o, "oversized body", f.raw(t, head("Content-Length: 9999999999999999"), false), http.StatusRequestEntityTooLarge, "too_large")
	for fault, start := range map[string]string{
		"slow client": head("Content-Length: 100") + `{"a"`, "slow client of a chunked body": head("Transfer-Encoding: chunked") + "4\r\n{\"a\"\r\n",
	} {
		f.wants(t, o, fault, f.raw(t, start, false), http.StatusRequestTimeout, "too_slow")
	}
	const large = 3 << 19 // beyond what a message holds
	f.raw(t, head("Content-Length: 2000000")+`"`+strings.Repeat("x", large), true)
	f.raw(t, head("Content-Length: 100")+`{"a"`, true)
	if o.body() == "*/*" && !strings.HasPrefix(path, "/v1/blobs") && !strings.HasPrefix(path, "/v1/volumes") { // which take larger ones
		chunked := head("Transfer-Encoding: chunked") + fmt.Sprintf("%x\r\n", faultPayload+1) + strings.Repeat("x", faultPayload+1) + "\r\n0\r\n\r\n"
		f.wants(t, o, "oversized chunked body", f.raw(t, chunked, false), http.StatusRequestEntityTooLarge, "too_large")
	}
}

// faultRow is one request that is at fault, and what it must be answered with.
type faultRow struct {
	fault, path, body string
	header            [2]string
	status            int
	kind              string
}

// listed are the rows of one route: each parameter, each part of the path and each body has some.
func (f *faultRig) listed(t *testing.T, o operation, rows []faultRow) {
	t.Helper()
	had := make(map[string]bool)
	for _, row := range rows {
		path := row.path
		if path == "" || strings.HasPrefix(path, "?") {
			path = f.path(o) + path
		}
		header := bearer(f.all)
		if row.header[0] != "" {
			header.Set(row.header[0], row.header[1])
		}
		f.wants(t, o, row.fault, f.do(t, o.method, path, []byte(row.body), header), row.status, row.kind)
		fault, _, _ := strings.Cut(row.fault, ":")
		had[fault] = true
	}
	for _, parameter := range o.Parameters {
		name := parameter.Value.Name
		if parameter.Value.In == "path" {
			name = "{" + name + "}"
		}
		if name != "{path}" && !had[name] {
			t.Errorf("%s has no row for %s", o.name(), name)
		}
	}
	if o.body() != "" && !had["body"] {
		t.Errorf("%s has no row for its body", o.name())
	}
}

// brokenBatches: a bad line in the middle, or a line that is too long, leaves no call in the queue.
func (f *faultRig) brokenBatches(t *testing.T) {
	t.Helper()
	as := bearer(f.all)
	var end struct {
		Error struct{ Kind string }
	}
	for fault, want := range map[string][2]string{"1\n{\n3\n": {"400 input", "input"}, "1\n\"" + strings.Repeat("x", queue.MaxInline) + "\"\n3\n": {"413 too_large", "too_large"}} {
		a := f.do(t, http.MethodPost, batchEcho, []byte(fault), as)
		if got := fmt.Sprint(a.status, " ", a.header.Get("Freshet-Error")); got != want[0] || a.header.Get("Freshet-Batch") == "" {
			t.Errorf("a batch with %.10q: %s", fault, a.body)
		}
		a = f.do(t, http.MethodPost, mapEcho, []byte(fault), as)
		lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
		if json.Unmarshal([]byte(lines[len(lines)-1]), &end) != nil || !strings.Contains(string(a.body), `"kind":"`+want[1]+`"`) {
			t.Errorf("a map with %.10q: %d %s", fault, a.status, a.body)
		}
	}
	eventually.True(t, "no call is left in the queue", func() bool {
		depth, err := queue.Depth(t.Context(), f.js(t), echoKey())
		return err == nil && depth == 0
	})
}
