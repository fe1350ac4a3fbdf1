package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// endOfBatch is what a caller is told of a batch.
type endOfBatch struct {
	Batch    string
	Inputs   int64
	Finished int64
	Counts   map[string]int64
}

// TestCallerIsToldThatABatchEnded: once, when its last call has, by whichever gateway, also when the one that took it is gone.
func TestCallerIsToldThatABatchEnded(t *testing.T) {
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	tells := func(c *gateway.Config) { c.CallbackSecret, c.PrivateCallbacks = "secret", true }
	taker := newRig(t, url, functions(echo()), tells).up(t)
	told := make(chan endOfBatch, 8)
	listener := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		var end endOfBatch
		if err := json.Unmarshal(body, &end); err != nil || request.Header.Get("Idempotency-Key") != end.Batch {
			t.Errorf("%v: %s", err, body)
		}
		told <- end
	}))
	defer listener.Close()
	header := http.Header{"Freshet-Callback": {listener.URL}, "Content-Type": {"application/json"}}
	a := taker.do(t, http.MethodPost, batchEcho, []byte("1\n2\n3\n4\n5\n"), header)
	if a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.body)
	}
	batch := a.header.Get("Freshet-Batch")
	taker.close()
	for range 2 {
		newRig(t, url, functions(echo()), tells).up(t)
	}
	hold := make(chan struct{})
	startWorker(t, url, 1, func(d *queue.Delivery) queue.Result {
		switch string(d.Body) {
		case "2":
			return queue.Result{Error: &wire.Error{Kind: wire.KindUser, Message: "two"}}
		case "5":
			<-hold
		}
		return queue.Result{Body: d.Body}
	})
	select {
	case end := <-told:
		t.Errorf("told %+v while a call runs", end)
	case <-time.After(2 * time.Second):
	}
	close(hold)
	select {
	case end := <-told:
		if diff := cmp.Diff(endOfBatch{batch, 5, 5, map[string]int64{"done": 4, "user": 1}}, end); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
	select {
	case end := <-told:
		t.Errorf("told %+v again", end)
	case <-time.After(2500 * time.Millisecond):
	}
}

// TestCallerIsToldOfABatchThatWasCancelled, here because of a bad line.
func TestCallerIsToldOfABatchThatWasCancelled(t *testing.T) {
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	r := newRig(t, url, functions(echo()), func(c *gateway.Config) { c.CallbackSecret, c.PrivateCallbacks = "secret", true }).up(t)
	told := make(chan endOfBatch, 8)
	listener := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		var end endOfBatch
		if err := json.NewDecoder(request.Body).Decode(&end); err != nil {
			t.Error(err)
		}
		told <- end
	}))
	defer listener.Close()
	header := http.Header{"Freshet-Callback": {listener.URL}, "Content-Type": {"application/json"}}
	a := r.do(t, http.MethodPost, batchEcho, []byte("1\n2\n{\n"), header)
	if a.status != http.StatusBadRequest {
		t.Fatalf("%d %s", a.status, a.body)
	}
	startWorker(t, url, 1, nil)
	select {
	case end := <-told:
		if end.Batch != a.header.Get("Freshet-Batch") || end.Counts["cancelled"] != 2 {
			t.Errorf("told %+v", end)
		}
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
	if status, _ := r.problemOf(t, http.MethodPost, batchEcho, []byte("1\n"), http.Header{"Freshet-Callback": {"ftp://example.com"}}); status != http.StatusBadRequest {
		t.Errorf("a wrong address: %d", status)
	}
}
