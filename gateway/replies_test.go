package gateway_test

import (
	"net/http"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
)

// TestNoResultIsAnsweredBeforeItIsStored: without a stream of results, a worker's word alone answers nobody.
func TestNoResultIsAnsweredBeforeItIsStored(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	js, err := jetstream.New(g.nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), queue.ResultsStream); err != nil {
		t.Fatal(err)
	}
	w := startWorker(t, nats.ClientURL(), 1, nil)
	got := g.do(t, http.MethodPost, callEcho, []byte("x"), http.Header{"Freshet-Timeout": {"500ms"}})
	if got.status != http.StatusGatewayTimeout {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if w.ran.Load() != 1 {
		t.Errorf("the call ran %d times", w.ran.Load())
	}
}
