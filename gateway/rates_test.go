package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// TestCallsOverARateAreRefused, of every way to make one call; another function is not concerned, and a deploy changes the rate.
func TestCallsOverARateAreRefused(t *testing.T) {
	slow := echo()
	slow.Rate = spec.Rate{PerSecond: 0.01, Burst: 3}
	other := spec.Function{App: "demo", Name: "other"}
	known := newLive(slow, other)
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	r := newRig(t, url, known).up(t)
	startWorker(t, url, 1, nil)
	ways := []string{callEcho, spawnEcho, "/v1/functions/demo/echo/stream"}
	for _, path := range ways {
		if a := r.do(t, http.MethodPost, path, []byte("1"), jsonHeader); a.status >= 300 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range ways {
		a := r.do(t, http.MethodPost, path, []byte("1"), jsonHeader)
		if a.status != http.StatusTooManyRequests || !strings.Contains(string(a.body), "rate_limited") || a.header.Get("Retry-After") == "" {
			t.Errorf("%s over the rate: %d %v %s", path, a.status, a.header, a.body)
		}
	}
	if a := r.do(t, http.MethodPost, "/v1/functions/demo/other/spawn", []byte("1"), jsonHeader); a.status != http.StatusAccepted {
		t.Errorf("another function: %d %s", a.status, a.body)
	}
	for name, rate := range map[string]spec.Rate{"another rate": {PerSecond: 1e6, Burst: 10}, "none": {}} {
		slow.Rate = rate
		if err := known.Register(t.Context(), slow); err != nil {
			t.Fatal(err)
		}
		if a := r.do(t, http.MethodPost, spawnEcho, []byte("1"), jsonHeader); a.status != http.StatusAccepted { // sets the rate
			<-time.After(time.Millisecond)
			if a = r.do(t, http.MethodPost, spawnEcho, []byte("1"), jsonHeader); a.status != http.StatusAccepted {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
	}
}

// TestLinesWaitForTheRate: those of a batch and of a map, and all are taken.
func TestLinesWaitForTheRate(t *testing.T) {
	slow := echo()
	slow.Rate = spec.Rate{PerSecond: 20, Burst: 1}
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	r := newRig(t, url, functions(slow)).up(t)
	startWorker(t, url, 4, nil)
	for _, path := range []string{batchEcho, mapEcho} {
		began := time.Now()
		a := r.do(t, http.MethodPost, path, []byte("1\n2\n3\n4\n5\n6\n7\n"), nil)
		if took := time.Since(began); a.status >= 300 || took < 250*time.Millisecond || !strings.Contains(string(a.body), `"inputs":7`) {
			t.Errorf("%s: %d after %s: %s", path, a.status, took, a.body)
		}
	}
}
