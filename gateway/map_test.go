package gateway_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// mapLine is a line of a map's answer.
type mapLine struct {
	Index   int             `json:"index"`
	Output  json.RawMessage `json:"output"`
	Error   *wire.Error     `json:"error"`
	Done    *bool           `json:"done"`
	Inputs  int             `json:"inputs"`
	Failed  int             `json:"failed"`
	Stopped bool            `json:"stopped"`
}

func readLines(tb testing.TB, body []byte) (lines []mapLine, end mapLine) {
	tb.Helper()
	for _, text := range bytes.Split(bytes.TrimSpace(body), []byte("\n")) {
		var line mapLine
		if err := json.Unmarshal(text, &line); err != nil {
			tb.Fatalf("line %s: %v", text, err)
		}
		lines = append(lines, line)
	}
	end = lines[len(lines)-1]
	if end.Done == nil {
		tb.Fatalf("the last line is %+v", end)
	}
	return lines[:len(lines)-1], end
}

func TestMapAnswersEachLine(t *testing.T) {
	url, r := newEchoRig(t)
	startWorker(t, url, 16, func(d *queue.Delivery) queue.Result {
		if bytes.Equal(d.Body, []byte(`{"n":7}`)) {
			return queue.Result{Error: &wire.Error{Kind: wire.KindUser, Message: "seven"}}
		}
		return queue.Result{ContentType: d.ContentType, Body: d.Body}
	})
	const count = 500
	body := slices.Concat(inputs(count), []byte("no json\n\n"), []byte(`{"last":true}`))
	for _, order := range []string{"input", "finished"} {
		lines, end := readLines(t, r.do(t, http.MethodPost, mapEcho+"?window=32&order="+order, body, nil).body)
		if !*end.Done || end.Inputs != count+2 || end.Failed != 2 || len(lines) != count+2 {
			t.Fatalf("%s: %d lines, end %+v", order, len(lines), end)
		}
		seen := make(map[int]bool)
		for i, line := range lines {
			if order == "input" && line.Index != i || seen[line.Index] {
				t.Fatalf("%s: line %d is of input %d", order, i, line.Index)
			}
			seen[line.Index] = true
			switch {
			case line.Index == 7 && (line.Error == nil || line.Error.Kind != wire.KindUser):
				t.Errorf("input 7: %+v", line)
			case line.Index == count && (line.Error == nil || line.Error.Kind != wire.KindInput):
				t.Errorf("the line that is no JSON: %+v", line)
			case line.Index < count && line.Index != 7 && string(line.Output) != fmt.Sprintf(`{"n":%d}`, line.Index):
				t.Errorf("input %d: %s", line.Index, line.Output)
			}
		}
	}
}

func TestMapStopsAtTheFirstErrorWhereAsked(t *testing.T) {
	url, r := newEchoRig(t)
	w := startWorker(t, url, 1, failing(wire.KindUser))
	lines, end := readLines(t, r.do(t, http.MethodPost, mapEcho+"?window=4&on_error=stop", inputs(100), nil).body)
	if len(lines) != 1 || !end.Stopped || w.ran.Load() > 8 {
		t.Errorf("%d lines, %d calls ran, end %+v", len(lines), w.ran.Load(), end)
	}
}

// TestRefusedMapIsAnsweredBeforeItsInputs, for which its client may wait.
func TestRefusedMapIsAnsweredBeforeItsInputs(t *testing.T) {
	_, r := newEchoRig(t)
	in, out := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server.URL+mapEcho+"?window=0", in)
	if err != nil {
		t.Fatal(err)
	}
	response, err := r.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if err := out.Close(); err != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("%s, %v", response.Status, err)
	}
}

// TestMapReadsAndWritesAtOnce with no more calls in flight than its window.
func TestMapReadsAndWritesAtOnce(t *testing.T) {
	url, r := newEchoRig(t)
	var now, most atomic.Int64
	startWorker(t, url, 16, func(d *queue.Delivery) queue.Result {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		return queue.Result{ContentType: d.ContentType, Body: d.Body}
	})
	in, out := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server.URL+mapEcho+"?window=4", in)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan *http.Response, 1)
	go func() {
		response, err := r.client.Do(request)
		if err != nil {
			t.Error(err)
		}
		answered <- response
	}()
	response := <-answered // before any input
	defer response.Body.Close()
	decoder := json.NewDecoder(response.Body)
	for i := range 20 { // each line is answered before the next one is sent
		if _, err := fmt.Fprintf(out, "%d\n", i); err != nil {
			t.Fatal(err)
		}
		var line mapLine
		if err := decoder.Decode(&line); err != nil || line.Index != i {
			t.Fatalf("line %d: %+v, %v", i, line, err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	var end mapLine
	if err := decoder.Decode(&end); err != nil || end.Done == nil || end.Inputs != 20 || most.Load() > 4 {
		t.Errorf("end %+v, %v, %d at once", end, err, most.Load())
	}
}

// TestMapGoesOnInAnotherGateway after the first one dies in the middle, and runs nothing twice.
func TestMapGoesOnInAnotherGateway(t *testing.T) {
	url, first := newEchoRig(t)
	second := newRig(t, url, functions(echo())).up(t)
	w := startWorker(t, url, 8, nil)
	const count = 400
	all := bytes.SplitAfter(inputs(count), []byte("\n"))
	in, out := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, first.server.URL+mapEcho+"?window=16&order=input", in)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = out.Write(bytes.Join(all[:200], nil)) }() // and then nothing more
	response, err := first.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	batch, got := response.Header.Get("Freshet-Batch"), 0
	decoder := json.NewDecoder(response.Body)
	for ; got < 100; got++ {
		var line mapLine
		if err := decoder.Decode(&line); err != nil || line.Index != got {
			t.Fatalf("line %d: %+v, %v", got, line, err)
		}
	}
	first.server.CloseClientConnections()
	_ = out.CloseWithError(errors.New("cut off"))
	response.Body.Close()
	path := fmt.Sprintf("%s?order=input&batch=%s&from=%d", mapEcho, batch, got)
	lines, end := readLines(t, second.do(t, http.MethodPost, path, bytes.Join(all[got:], nil), nil).body)
	if !*end.Done || end.Failed != 0 || len(lines) != count-got || lines[0].Index != got {
		t.Fatalf("%d lines, end %+v", len(lines), end)
	}
	if ran := w.ran.Load(); ran != count {
		t.Errorf("%d calls ran, want %d", ran, count)
	}
	path = fmt.Sprintf("%s?order=input&batch=%s&from=%d&sent=%d", mapEcho, batch, count-3, count-1)
	lines, end = readLines(t, second.do(t, http.MethodPost, path, []byte("\n1\n\n2\n"), nil).body)
	if len(lines) != 2 || lines[0].Index != count-2 || string(lines[0].Output) != fmt.Sprintf(`{"n":%d}`, count-2) ||
		lines[1].Index != count-1 || end.Inputs != 3 {
		t.Errorf("with empty lines: %+v, end %+v", lines, end)
	}
}

// generating yields so many values, each once it may, then ends.
func generating(tb testing.TB, count int, pause <-chan struct{}) func(*worker) func(*queue.Delivery) queue.Result {
	return func(w *worker) func(*queue.Delivery) queue.Result {
		return func(d *queue.Delivery) queue.Result {
			values := w.store.Yields(tb.Context(), d.Call)
			for i := range count {
				if err := values.Put("application/json", []byte(fmt.Sprint(i))); err != nil {
					tb.Error(err)
				}
				if pause == nil {
					continue
				}
				select {
				case <-pause:
				case <-d.Cancelled():
					return queue.Result{Error: &wire.Error{Kind: wire.KindCancelled}}
				}
			}
			stored, err := values.Flush()
			if err != nil {
				tb.Error(err)
			}
			return queue.Result{Yields: stored}
		}
	}
}

func TestStreamWritesValuesAsTheyCome(t *testing.T) {
	url, r := newEchoRig(t)
	startWorkerOf(t, url, 4, generating(t, 1000, nil))
	for _, accept := range []string{"application/x-ndjson", "text/event-stream"} {
		a := r.do(t, http.MethodPost, "/v1/functions/demo/echo/stream", []byte("1"), http.Header{"Accept": {accept}})
		if a.status != http.StatusOK || a.header.Get("Content-Type") != accept {
			t.Fatalf("%d %s", a.status, a.header)
		}
		var data []string
		for line := range strings.SplitSeq(string(a.body), "\n") {
			if text := strings.TrimPrefix(line, "data: "); strings.HasPrefix(text, "{") {
				data = append(data, text)
			}
		}
		if len(data) != 1001 || data[0] != `{"index":0,"value":0}` || data[999] != `{"index":999,"value":999}` || data[1000] != `{"done":true,"values":1000}` {
			t.Fatalf("%d events, %q … %q", len(data), data[0], data[len(data)-1])
		}
	}
}

// TestClientWhoLeavesAStreamEndsItsCall, while it runs.
func TestClientWhoLeavesAStreamEndsItsCall(t *testing.T) {
	url, r := newEchoRig(t)
	step, ended := make(chan struct{}), make(chan queue.Result, 1)
	startWorkerOf(t, url, 1, func(w *worker) func(*queue.Delivery) queue.Result {
		return func(d *queue.Delivery) queue.Result {
			result := generating(t, 100, step)(w)(d)
			ended <- result
			return result
		}
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server.URL+"/v1/functions/demo/echo/stream", strings.NewReader("1"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := r.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(response.Body)
	for i := range 3 { // each value is there before the next one is made
		var line mapLine
		if err := decoder.Decode(&line); err != nil || line.Index != i {
			t.Fatalf("value %d: %+v, %v", i, line, err)
		}
		step <- struct{}{}
	}
	response.Body.Close()
	select {
	case result := <-ended:
		if result.Error == nil || result.Error.Kind != wire.KindCancelled {
			t.Errorf("ended as %+v", result)
		}
	case <-time.After(patience):
		t.Fatal("the call runs on")
	}
}

// TestSpawnedStreamIsReadAgain from any index, by any gateway.
func TestSpawnedStreamIsReadAgain(t *testing.T) {
	url, r := newEchoRig(t)
	startWorkerOf(t, url, 1, generating(t, 10, nil))
	call := r.show(t, http.MethodPost, spawnEcho+"?stream=true", []byte("1"), jsonHeader, http.StatusAccepted).Call
	other := newRig(t, url, functions(echo())).up(t)
	for after, want := range map[string]int{"": 10, "?after=4": 5} {
		lines, end := readLines(t, other.do(t, http.MethodGet, "/v1/calls/"+call+"/values"+after, nil, nil).body)
		if len(lines) != want || !*end.Done || lines[0].Index != 10-want {
			t.Errorf("%s: %d values, end %+v", after, len(lines), end)
		}
	}
}

func TestDeadCallsAreShownAndReplayed(t *testing.T) {
	url, r := newEchoRig(t)
	call := r.show(t, http.MethodPost, spawnEcho, []byte(`"poison"`), jsonHeader, http.StatusAccepted).Call
	var mended atomic.Bool
	nc, js := connect(t, url), r.js(t)
	startWorker(t, url, 1, func(d *queue.Delivery) queue.Result {
		if mended.Load() {
			return queue.Result{ContentType: d.ContentType, Body: d.Body}
		}
		reason := wire.Error{Kind: wire.KindCrash, Message: "it died"}
		dead := queue.DeadCall{Envelope: d.Envelope, Reason: reason}
		dead.Attempt = d.Attempt
		err := errors.Join(queue.RecordAttempt(nc, d.Call, queue.FailedAttempt{Attempt: d.Attempt, Error: reason}), queue.Bury(t.Context(), js, dead))
		if err != nil {
			t.Error(err)
		}
		return queue.Result{Error: &reason}
	})
	got := r.show(t, http.MethodGet, "/v1/calls/"+call+"?wait=20s", nil, nil, http.StatusOK)
	if got.Status != "failed" || len(got.Failed) != 1 || got.Failed[0].Error.Message != "it died" {
		t.Fatalf("%+v", got)
	}
	var page struct{ Items []shown }
	if a := r.do(t, http.MethodGet, "/v1/dead?function=demo.echo", nil, nil); json.Unmarshal(a.body, &page) != nil || len(page.Items) != 1 || page.Items[0].Call != call {
		t.Fatalf("%s", a.body)
	}
	if dead := r.show(t, http.MethodGet, "/v1/dead/"+call, nil, nil, http.StatusOK); dead.Kind != wire.KindCrash || len(dead.Failed) != 1 {
		t.Errorf("%+v", dead)
	}
	if a := r.do(t, http.MethodGet, "/v1/dead/"+call+"/input", nil, nil); string(a.body) != `"poison"` {
		t.Errorf("its input: %s", a.body)
	}
	mended.Store(true)
	r.show(t, http.MethodPost, "/v1/dead/"+call+"/replay", nil, nil, http.StatusAccepted)
	if got := r.show(t, http.MethodGet, "/v1/calls/"+call+"?wait=20s", nil, nil, http.StatusOK); got.Status != "done" || string(got.Output) != `"poison"` {
		t.Errorf("replayed: %+v", got)
	}
	if status, _ := r.problemOf(t, http.MethodPost, "/v1/dead/"+call+"/replay", nil, nil); status != http.StatusNotFound {
		t.Errorf("replayed twice: %d", status)
	}
}
