package gateway_test

import (
	"net/http"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCallEchoes(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	startWorker(t, nats.ClientURL(), 2, nil)

	got := g.do(t, http.MethodPost, callEcho, []byte("hello"), http.Header{"Content-Type": {"text/x-demo"}})
	if got.status != http.StatusOK || string(got.body) != "hello" {
		t.Fatalf("got %d %q", got.status, got.body)
	}
	if d := cmp.Diff("text/x-demo", got.header.Get("Content-Type")); d != "" {
		t.Error(d)
	}
	for name, pattern := range map[string]string{
		"Freshet-Call": `^[0-9A-Z]{26}$`, "Freshet-Attempt": `^1$`, "Freshet-Worker": `^alloc-1$`,
		"Server-Timing": `^queue;dur=\d+\.\d{3}, start;dur=0\.000, run;dur=0\.000$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(got.header.Get(name)) {
			t.Errorf("header %s: got %q, want %s", name, got.header.Get(name), pattern)
		}
	}
}
