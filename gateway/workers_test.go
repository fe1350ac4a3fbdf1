package gateway_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
)

// TestWorkersAreKnownByTheirHeartbeats also shows what they are for: a call hints demand unless a worker is free.
func TestWorkersAreKnownByTheirHeartbeats(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	hints, err := g.nc.SubscribeSync(queue.AllDemand)
	if err != nil {
		t.Fatal(err)
	}
	w := startWorker(t, nats.ClientURL(), 2, nil)

	if got := g.do(t, http.MethodPost, callEcho, nil, nil); got.status != http.StatusOK {
		t.Fatalf("got %d %q", got.status, got.body)
	}
	if msg, err := hints.NextMsg(patience); err != nil || msg.Subject != echoKey().DemandSubject() {
		t.Fatalf("a call without a known worker: hint %v, %v", msg, err)
	}

	w.beat(t, queue.StateReady, 2, 0)
	eventually.True(t, "the worker is listed", func() bool {
		var list []queue.Heartbeat
		got := g.do(t, http.MethodGet, "/v1/workers", nil, nil)
		return json.Unmarshal(got.body, &list) == nil && len(list) == 1 && list[0].Alloc == "alloc-1"
	})
	if got := g.do(t, http.MethodPost, callEcho, nil, nil); got.status != http.StatusOK {
		t.Fatalf("got %d %q", got.status, got.body)
	}
	if err := g.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if count, _, err := hints.Pending(); err != nil || count != 0 {
		t.Errorf("%d hints although a worker was free, %v", count, err)
	}

	w.beat(t, queue.StateStopped, 2, 0)
	eventually.True(t, "the stopped worker is gone", func() bool {
		return string(g.do(t, http.MethodGet, "/v1/workers", nil, nil).body) == "[]\n"
	})
}
