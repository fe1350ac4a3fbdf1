package calls

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// spawnAll spawns a call for each input and returns their ids once all are queued.
func spawnAll(t *testing.T, function string, inputs ...string) []string {
	t.Helper()
	status, header, body := request(t, http.MethodPost, "/v1/functions/calls/"+function+"/batch", strings.NewReader(strings.Join(inputs, "\n")+"\n"))
	if status != http.StatusAccepted {
		t.Fatalf("spawn %d calls: %d %s", len(inputs), status, body)
	}
	var ids []string
	for i := range inputs {
		ids = append(ids, callOf(header.Get("Freshet-Batch"), i))
	}
	return ids
}

// size is how large the batch was that a call ran in.
func size(t *testing.T, v view) int {
	t.Helper()
	var n int
	if err := json.Unmarshal(v.Output, &n); err != nil || v.Status != "done" {
		t.Fatalf("%+v: %v", v, err)
	}
	return n
}

func TestCallsRunTogether(t *testing.T) {
	_ = size(t, look(t, spawn(t, "together", `{}`), "120s")) // a worker is there
	var inputs []string
	for range 10 {
		inputs = append(inputs, `{"millis":10}`)
	}
	sizes := map[int]int{}
	for _, id := range spawnAll(t, "together", inputs...) {
		sizes[size(t, look(t, id, "60s"))]++
	}
	t.Logf("calls by the size of their batch: %v", sizes)
	if sizes[4] < 4 || sizes[0]+sizes[1]+sizes[2]+sizes[3]+sizes[4] != 10 {
		t.Errorf("batches of at most 4 were due, and some full")
	}
}

func TestCallsOfABatchEndEachOnItsOwn(t *testing.T) {
	ids := spawnAll(t, "together", `{}`, `{"do":"fail"}`, `{"do":3}`, `{}`)
	for i, want := range []string{"", "as asked", `"Do"`, ""} {
		v := look(t, ids[i], "120s")
		if want == "" && size(t, v) < 1 || want != "" && (v.Error == nil || !strings.Contains(v.Error.Message, want)) {
			t.Errorf("call %d: %+v", i, v)
		}
	}
	for i, id := range spawnAll(t, "together", `{}`, `{}`, `{}`, `{"do":"lose"}`) {
		if v := look(t, id, "60s"); v.Error == nil || v.Error.Type != "freshet.WrongCount" || v.Error.Kind != wire.KindUser {
			t.Errorf("too few outputs, call %d: %+v", i, v)
		}
	}
}

func TestCallLeavesTheBatchThatForms(t *testing.T) {
	ids := spawnAll(t, "patient", `{}`, `{}`)
	for _, id := range ids { // a worker has them
		eventually.True(t, "call "+id+" is in a batch that forms", func() bool { return delivered(t, "patient") })
	}
	if err := api(t).Cancel(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	if v := look(t, ids[0], "10s"); v.Status != "cancelled" {
		t.Errorf("the cancelled call: %+v", v)
	}
	if v := look(t, ids[1], "0s"); v.Status == "cancelled" || v.Status == "done" {
		t.Errorf("the other call: %+v", v)
	}
	began := time.Now()
	late := spawnWithin(t, "patient", `{}`, "1s")
	if v := look(t, late, "30s"); v.Error == nil || v.Error.Kind != wire.KindExpired {
		t.Errorf("a call whose time is over after %s: %+v", time.Since(began), v)
	}
	eventually.True(t, "only the last call is in the queue", func() bool { return pendingOf(t, "patient") == 1 })
	if err := api(t).Cancel(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the queue is empty", func() bool { return pendingOf(t, "patient") == 0 })
}

// spawnWithin spawns a call that waits for its run no longer than it says.
func spawnWithin(t *testing.T, function, input, limit string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, shared.state.Gateway()+"/v1/functions/calls/"+function+"/spawn", strings.NewReader(input))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + shared.state.Token}, "Freshet-Timeout": {limit}}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		t.Fatal(response.Status)
	}
	return response.Header.Get("Freshet-Call")
}

// delivered tells whether every waiting call of a function is with a worker.
func delivered(t *testing.T, function string) bool {
	t.Helper()
	_, _, body := request(t, http.MethodGet, "/v1/workers?app=calls&function="+function, nil)
	var workers []struct{ Busy int }
	if err := json.Unmarshal(body, &workers); err != nil {
		t.Fatal(err)
	}
	busy := 0
	for _, w := range workers {
		busy += w.Busy
	}
	return busy > 0 && int64(busy) == pendingOf(t, function)
}

func pendingOf(t *testing.T, function string) int64 {
	t.Helper()
	_, _, body := request(t, http.MethodGet, "/v1/functions/calls/"+function, nil)
	var f struct{ Pending int64 }
	if err := json.Unmarshal(body, &f); err != nil {
		t.Fatal(err)
	}
	return f.Pending
}

func TestCallCancelledInARunningBatchLetsItRun(t *testing.T) {
	_ = size(t, look(t, spawn(t, "together", `{}`), "120s"))
	ids := spawnAll(t, "together", `{"millis":500}`, `{"millis":500}`, `{"millis":500}`, `{"millis":500}`)
	eventually.True(t, "the batch runs", func() bool { return delivered(t, "together") })
	began := time.Now()
	if err := api(t).Cancel(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	if v := look(t, ids[0], "10s"); v.Status != "cancelled" {
		t.Errorf("the cancelled call: %+v", v)
	}
	took := time.Since(began)
	for _, id := range ids[1:] {
		if n := size(t, look(t, id, "60s")); n < 3 {
			t.Errorf("call %s ran in a batch of %d", id, n)
		}
	}
	if took > time.Since(began)/2 {
		t.Errorf("the cancelled call was told after %s of the batch's %s", took, time.Since(began))
	}
}

// TestBatchHasLargePayloads beside a small one, in the same batch.
func TestBatchHasLargePayloads(t *testing.T) {
	inputs := [][]byte{bytes.Repeat([]byte("0123456789abcdef"), 3<<16), []byte("small"), bytes.Repeat([]byte("fedcba9876543210"), 5<<16)}
	outputs := make([][]byte, len(inputs))
	var calling sync.WaitGroup
	for i, input := range inputs {
		calling.Go(func() {
			response, err := api(t).Do(t.Context(), client.Request{Function: "calls.wide", Body: input, ContentType: "application/octet-stream"})
			if err != nil {
				t.Error(err)
			}
			outputs[i] = response.Body
		})
	}
	calling.Wait()
	for i, output := range outputs {
		if len(output) == 0 || !bytes.Equal(output[:len(output)-1], inputs[i]) || output[len(output)-1] != '3' {
			t.Errorf("call %d: %d bytes of %d, of a batch of %q", i, len(output), len(inputs[i]), output[max(0, len(output)-1):])
		}
	}
}

// TestBatchTimesOutAsAWhole, and its worker takes the next one.
func TestBatchTimesOutAsAWhole(t *testing.T) {
	for _, id := range spawnAll(t, "together", `{"millis":60000}`, `{}`) {
		if v := look(t, id, "120s"); v.Error == nil || v.Error.Kind != wire.KindTimeout {
			t.Errorf("call %s: %+v", id, v)
		}
	}
	_ = size(t, look(t, spawn(t, "together", `{}`), "60s"))
}

// TestPoisonOfABatchIsFoundOut: the others run alone after it, and are not blamed.
func TestPoisonOfABatchIsFoundOut(t *testing.T) {
	_ = size(t, look(t, spawn(t, "together", `{}`), "120s"))
	ids := spawnAll(t, "together", `{"millis":100}`, `{"millis":100}`, `{"do":"die"}`, `{"millis":100}`)
	for i, id := range ids {
		v := look(t, id, "150s")
		if i == 2 {
			if v.Error == nil || v.Error.Kind != wire.KindCrash || len(v.Failed) < 2 {
				t.Errorf("the poisonous call: %+v", v)
			}
			continue
		}
		if n := size(t, v); n != 1 {
			t.Errorf("call %d ran again in a batch of %d, not alone", i, n)
		}
	}
}

// callOf is the id of a batch's call.
func callOf(batch string, index int) string {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	return fmt.Sprintf("%s%c", batch[:25], alphabet[index+1])
}
