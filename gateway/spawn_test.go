package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	spawnEcho = "/v1/functions/demo/echo/spawn"
	batchEcho = "/v1/functions/demo/echo/batch"
	mapEcho   = "/v1/functions/demo/echo/map"
)

// shown is a call, a batch or a dead call as the API shows it.
type shown struct {
	Call     string                `json:"call"`
	Batch    string                `json:"batch"`
	Function string                `json:"function"`
	Status   string                `json:"status"`
	Inputs   int64                 `json:"inputs"`
	Finished int64                 `json:"finished"`
	Open     bool                  `json:"open"`
	Output   json.RawMessage       `json:"output"`
	Error    *wire.Error           `json:"error"`
	Failed   []queue.FailedAttempt `json:"failed_attempts"`
	Kind     wire.Kind             `json:"kind"`
}

// show asks for what must be there.
func (r *rig) show(tb testing.TB, method, path string, body []byte, header http.Header, status int) shown {
	tb.Helper()
	a := r.do(tb, method, path, body, header)
	if a.status != status {
		tb.Fatalf("%s %s: %d: %s", method, path, a.status, a.body)
	}
	var s shown
	if err := json.Unmarshal(a.body, &s); err != nil {
		tb.Fatalf("%s %s: %v: %s", method, path, err, a.body)
	}
	return s
}

// problemOf asks for what must be refused, and checks that the answer is a problem of RFC 9457.
func (r *rig) problemOf(tb testing.TB, method, path string, body []byte, header http.Header) (int, wire.Kind) {
	tb.Helper()
	a := r.do(tb, method, path, body, header)
	var p struct {
		Type, Title, Detail string
		Status              int
		Error               struct{ Kind wire.Kind }
	}
	if err := json.Unmarshal(a.body, &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" ||
		p.Status != a.status || p.Title == "" || p.Detail == "" || p.Type != "urn:freshet:problem:"+string(p.Error.Kind) {
		tb.Errorf("%s %s: no problem document: %d %s: %s", method, path, a.status, a.header.Get("Content-Type"), a.body)
	}
	return a.status, p.Error.Kind
}

func newEchoRig(tb testing.TB) (string, *rig) {
	tb.Helper()
	url := startNATS(tb, tb.TempDir(), 0).ClientURL()
	return url, newRig(tb, url, functions(echo())).up(tb)
}

var jsonHeader = http.Header{"Content-Type": {"application/json"}}

func TestSpawnedCallIsFetchedLater(t *testing.T) {
	url, r := newEchoRig(t)
	spawned := r.show(t, http.MethodPost, spawnEcho, []byte(`{"n":1}`), jsonHeader, http.StatusAccepted)
	address := "/v1/calls/" + spawned.Call
	if got := r.show(t, http.MethodGet, address, nil, nil, http.StatusOK); got.Status != "queued" || got.Function != "demo.echo" {
		t.Errorf("before it runs: %+v", got)
	}
	if a := r.do(t, http.MethodGet, address+"/result?wait=10ms", nil, nil); a.status != http.StatusAccepted {
		t.Errorf("its result before it runs: %d", a.status)
	}
	hold := make(chan struct{})
	startWorker(t, url, 1, func(d *queue.Delivery) queue.Result {
		<-hold
		return queue.Result{ContentType: d.ContentType, Body: d.Body}
	})
	eventually.True(t, "the call runs", func() bool {
		return r.show(t, http.MethodGet, address, nil, nil, http.StatusOK).Status == "running"
	})
	close(hold)
	other := newRig(t, url, functions(echo())).up(t) // any gateway knows it
	got := other.show(t, http.MethodGet, address+"?wait=20s", nil, nil, http.StatusOK)
	if got.Status != "done" || string(got.Output) != `{"n":1}` {
		t.Errorf("after it ran: %+v", got)
	}
	a := r.do(t, http.MethodGet, address+"/result", nil, nil)
	if a.status != http.StatusOK || string(a.body) != `{"n":1}` || a.header.Get("Freshet-Worker") != "alloc-1" {
		t.Errorf("its result: %d %s %s", a.status, a.header, a.body)
	}
}

func TestSpawnWithAKeyHappensOnce(t *testing.T) {
	_, r := newEchoRig(t)
	key := http.Header{"Idempotency-Key": {"k"}, "Content-Type": {"application/json"}}
	one := r.show(t, http.MethodPost, spawnEcho, []byte(`1`), key, http.StatusAccepted)
	two := r.show(t, http.MethodPost, spawnEcho, []byte(`1`), key, http.StatusAccepted)
	if one.Call != two.Call {
		t.Errorf("calls %s and %s", one.Call, two.Call)
	}
	if status, kind := r.problemOf(t, http.MethodPost, spawnEcho, []byte(`2`), key); status != http.StatusConflict || kind != "conflict" {
		t.Errorf("the same key with another body: %d %s", status, kind)
	}
	if status, _ := r.problemOf(t, http.MethodPost, callEcho, []byte(`2`), key); status != http.StatusConflict {
		t.Errorf("the same key with another body, waited for: %d", status)
	}
}

func TestCancelledCallsDoNotRun(t *testing.T) {
	url, r := newEchoRig(t)
	cancelled := r.show(t, http.MethodPost, spawnEcho, []byte(`1`), jsonHeader, http.StatusAccepted)
	kept := r.show(t, http.MethodPost, spawnEcho, []byte(`2`), jsonHeader, http.StatusAccepted)
	for range 2 { // cancelling is repeatable
		if got := r.show(t, http.MethodPost, "/v1/calls/"+cancelled.Call+"/cancel", nil, nil, http.StatusOK); got.Status != "cancelled" {
			t.Fatalf("cancel: %+v", got)
		}
	}
	w := startWorker(t, url, 1, nil)
	if got := r.show(t, http.MethodGet, "/v1/calls/"+kept.Call+"?wait=20s", nil, nil, http.StatusOK); got.Status != "done" {
		t.Errorf("the other call: %+v", got)
	}
	got := r.show(t, http.MethodGet, "/v1/calls/"+cancelled.Call, nil, nil, http.StatusOK)
	if got.Status != "cancelled" || got.Error == nil || got.Error.Kind != wire.KindCancelled || w.started.Load() != 1 {
		t.Errorf("%+v, and %d calls ran", got, w.started.Load())
	}
	if status, _ := r.problemOf(t, http.MethodPost, "/v1/calls/"+kept.Call+"/cancel", nil, nil); status != http.StatusConflict {
		t.Errorf("cancel of a call that ended: %d", status)
	}
	if a := r.do(t, http.MethodGet, "/v1/calls/"+cancelled.Call+"/result", nil, nil); a.status != 499 {
		t.Errorf("its result: %d", a.status)
	}
}

func TestCallOfACallerWhoGoesIsCancelledWhereTheFunctionSaysSo(t *testing.T) {
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	f := echo()
	f.CancelOnDisconnect = true
	r := newRig(t, url, functions(f)).up(t)
	running, cancelled := make(chan struct{}), make(chan struct{})
	startWorker(t, url, 1, func(d *queue.Delivery) queue.Result {
		close(running)
		<-d.Cancelled()
		close(cancelled)
		return queue.Result{Error: &wire.Error{Kind: wire.KindCancelled}}
	})
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-running; leave() }()
	if _, err := r.try(ctx, http.MethodPost, callEcho, []byte(`1`), nil); err == nil {
		t.Error("answered a caller who went")
	}
	select {
	case <-cancelled:
	case <-time.After(patience):
		t.Fatal("the worker was never told")
	}
}

func TestLongCallsGoOnAtAnAddress(t *testing.T) {
	url, r := newEchoRig(t)
	r.client.CheckRedirect = nil
	hold := make(chan struct{})
	startWorker(t, url, 1, func(d *queue.Delivery) queue.Result {
		<-hold
		return queue.Result{ContentType: d.ContentType, Body: d.Body}
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server.URL+callEcho+"?redirect=true&wait=50ms", strings.NewReader("5"))
	if err != nil {
		t.Fatal(err)
	}
	redirected := false
	client := *r.client
	client.CheckRedirect = func(next *http.Request, _ []*http.Request) error {
		if !redirected {
			redirected = true
			close(hold)
		}
		if next.Method != http.MethodGet {
			t.Errorf("redirected as %s", next.Method)
		}
		return nil
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != "5" || response.StatusCode != http.StatusOK || !redirected {
		t.Errorf("%s %s, %v, redirected: %v", response.Status, body, err, redirected)
	}
}

func TestListOfWhatWasSpawned(t *testing.T) {
	url, r := newEchoRig(t)
	var calls []string
	for i := range 5 {
		calls = append(calls, r.show(t, http.MethodPost, spawnEcho, []byte(fmt.Sprint(i)), jsonHeader, http.StatusAccepted).Call)
	}
	r.show(t, http.MethodPost, "/v1/calls/"+calls[0]+"/cancel", nil, nil, http.StatusOK)
	list := func(query string) (found []string, next string) {
		a := r.do(t, http.MethodGet, "/v1/calls?"+query, nil, nil)
		var page struct {
			Items []shown
			Next  string
		}
		if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
			t.Fatalf("list %s: %d %s", query, a.status, a.body)
		}
		for _, item := range page.Items {
			found = append(found, item.Call)
		}
		return found, page.Next
	}
	first, next := list("function=demo.echo&limit=3")
	rest, last := list("function=demo.echo&limit=3&after=" + next)
	if d := cmp.Diff(calls, append(first, rest...)); d != "" || next == "" || last != "" {
		t.Errorf("pages %v (%s), %v (%s)", first, next, rest, last)
	}
	for query, want := range map[string][]string{
		"status=queued":     calls[1:],
		"status=cancelled":  calls[:1],
		"function=demo":     calls,
		"function=other.fn": nil,
		"since=1h":          calls,
		"namespace=*":       calls,
	} {
		if found, _ := list(query); cmp.Diff(want, found) != "" {
			t.Errorf("%s: %v, want %v", query, found, want)
		}
	}
	startWorker(t, url, 1, nil)
	r.show(t, http.MethodGet, "/v1/calls/"+calls[4]+"?wait=20s", nil, nil, http.StatusOK)
	if found, _ := list("status=done"); !slices.Contains(found, calls[4]) {
		t.Errorf("done: %v", found)
	}
}

func inputs(n int) []byte {
	var body bytes.Buffer
	for i := range n {
		fmt.Fprintf(&body, "{\"n\":%d}\n", i)
	}
	return body.Bytes()
}

func TestBulkSpawnTakesEveryLineOnce(t *testing.T) {
	url, r := newEchoRig(t)
	const count = 5000
	batch := r.show(t, http.MethodPost, batchEcho, inputs(count), nil, http.StatusAccepted)
	if batch.Inputs != count || batch.Open {
		t.Fatalf("%+v", batch)
	}
	w := startWorker(t, url, 64, nil)
	eventually.True(t, "the batch is done", func() bool {
		return r.show(t, http.MethodGet, "/v1/batches/"+batch.Batch, nil, nil, http.StatusOK).Status == "done"
	})
	a := r.do(t, http.MethodGet, "/v1/batches/"+batch.Batch+"/results?follow=true", nil, nil)
	lines := bytes.Split(bytes.TrimSpace(a.body), []byte("\n"))
	if len(lines) != count+1 || w.ran.Load() != count {
		t.Fatalf("%d lines, %d calls ran", len(lines), w.ran.Load())
	}
	for i, line := range lines[:count] {
		var got mapLine
		if err := json.Unmarshal(line, &got); err != nil || got.Index != i || string(got.Output) != fmt.Sprintf(`{"n":%d}`, i) {
			t.Fatalf("line %d: %s", i, line)
		}
	}
	if status, _ := r.problemOf(t, http.MethodPost, batchEcho+"?batch="+batch.Batch+"&from=5000", []byte("1"), nil); status != http.StatusConflict {
		t.Errorf("more inputs for a complete batch: %d", status)
	}
}

// cutOff is a body that breaks off.
type cutOff struct{ io.Reader }

func (c cutOff) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestBulkSpawnThatBreaksOffGoesOn(t *testing.T) {
	url, r := newEchoRig(t)
	const count, broken = 3000, 1200
	all := inputs(count)
	lines := bytes.SplitAfter(all, []byte("\n"))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server.URL+batchEcho, cutOff{bytes.NewReader(bytes.Join(lines[:broken], nil))})
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Idempotency-Key", "mine")
	if response, err := r.client.Do(request); err == nil {
		response.Body.Close()
	}
	var batch shown
	eventually.True(t, "the batch is recorded", func() bool {
		a := r.do(t, http.MethodGet, "/v1/calls?status=running", nil, nil)
		var page struct{ Items []shown }
		if err := json.Unmarshal(a.body, &page); err != nil || len(page.Items) > 1 {
			t.Fatalf("%s", a.body)
		}
		if len(page.Items) == 0 {
			return false
		}
		batch = page.Items[0]
		return batch.Inputs > 0
	})
	if !batch.Open || batch.Inputs > broken {
		t.Fatalf("%+v", batch)
	}
	if status, _ := r.problemOf(t, http.MethodPost, batchEcho+"?from=2500&batch="+batch.Batch, lines[2500], nil); status != http.StatusBadRequest {
		t.Errorf("a gap was taken: %d", status)
	}
	const again = 1000 // the client sends some again, and knows its key alone
	key := http.Header{"Idempotency-Key": {"mine"}}
	got := r.show(t, http.MethodPost, batchEcho+fmt.Sprintf("?from=%d", again), bytes.Join(lines[again:], nil), key, http.StatusAccepted)
	if got.Inputs != count || got.Open || got.Batch != batch.Batch {
		t.Fatalf("%+v", got)
	}
	w := startWorker(t, url, 64, nil)
	eventually.True(t, "the batch is done", func() bool {
		return r.show(t, http.MethodGet, "/v1/batches/"+batch.Batch, nil, nil, http.StatusOK).Finished == count
	})
	if ran := w.ran.Load(); ran != count {
		t.Errorf("%d calls ran", ran)
	}
}

// TestSlowBulkSpawnIsRecordedAsItGoes: whoever goes on with it must not begin anew.
func TestSlowBulkSpawnIsRecordedAsItGoes(t *testing.T) {
	_, r := newEchoRig(t)
	in, out := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server.URL+batchEcho, in)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if response, err := r.client.Do(request); err == nil {
			response.Body.Close()
		}
	}()
	eventually.True(t, "inputs are recorded while the body goes on", func() bool {
		if _, err := out.Write([]byte("1\n")); err != nil {
			t.Fatal(err)
		}
		var page struct{ Items []shown }
		a := r.do(t, http.MethodGet, "/v1/calls", nil, nil)
		return json.Unmarshal(a.body, &page) == nil && len(page.Items) == 1 && page.Items[0].Inputs > 0
	})
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	<-answered
}

func TestBadLineTakesTheBatchBack(t *testing.T) {
	url, r := newEchoRig(t)
	body := slices.Concat(inputs(100), []byte("{no json}\n"), inputs(5))
	a := r.do(t, http.MethodPost, batchEcho, body, nil)
	batch := a.header.Get("Freshet-Batch")
	if a.status != http.StatusBadRequest || !bytes.Contains(a.body, []byte("line 101")) || batch == "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := r.show(t, http.MethodGet, "/v1/batches/"+batch, nil, nil, http.StatusOK); got.Status != "cancelled" || got.Inputs != 100 {
		t.Errorf("%+v", got)
	}
	w := startWorker(t, url, 8, nil)
	eventually.True(t, "every call has a result", func() bool {
		return r.show(t, http.MethodGet, "/v1/batches/"+batch, nil, nil, http.StatusOK).Finished == 100
	})
	if w.started.Load() != 0 {
		t.Errorf("%d calls ran", w.started.Load())
	}
}
