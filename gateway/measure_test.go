package gateway_test

import (
	"net/http"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// TestMaxPendingCountsTheCallsOfOtherGateways: each counts its own callers exactly and measures the rest.
func TestMaxPendingCountsTheCallsOfOtherGateways(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	limited := spec.Function{App: "demo", Name: "echo", Config: spec.Config{MaxPending: 2}}
	first := newRig(t, nats.ClientURL(), functions(limited)).up(t)
	second := newRig(t, nats.ClientURL(), functions(limited)).up(t)
	ends := make(chan answer, 2)
	for range cap(ends) {
		go func() {
			a, _ := first.try(t.Context(), http.MethodPost, callEcho, nil, http.Header{"Freshet-Timeout": {"20s"}})
			ends <- a
		}()
	}
	eventually.True(t, "both are queued", func() bool { return pending(t, first) == 2 })
	if got := first.do(t, http.MethodPost, callEcho, nil, nil); got.status != http.StatusTooManyRequests {
		t.Errorf("the gateway that has them: got %d %s", got.status, got.body)
	}
	eventually.True(t, "the other gateway refuses too", func() bool {
		return second.do(t, http.MethodPost, callEcho, nil, http.Header{"Freshet-Timeout": {"100ms"}}).status == http.StatusTooManyRequests
	})
	startWorker(t, nats.ClientURL(), 4, nil)
	for range cap(ends) {
		if a := <-ends; a.status != http.StatusOK {
			t.Errorf("a call that was in time: got %d %s", a.status, a.body)
		}
	}
	eventually.True(t, "there is room again", func() bool {
		return second.do(t, http.MethodPost, callEcho, nil, nil).status == http.StatusOK
	})
}
