package gateway_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/queue"
)

// TestCallerIsToldThatACallEnded, again until it takes the word, by one gateway at a time and signed.
func TestCallerIsToldThatACallEnded(t *testing.T) {
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	tells := func(c *gateway.Config) { c.CallbackSecret, c.PrivateCallbacks = "secret", true }
	r := newRig(t, url, functions(echo()), tells).up(t)
	newRig(t, url, functions(echo()), tells).up(t)
	told := make(chan shown, 8)
	tries := 0
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		tries++
		body, _ := io.ReadAll(request.Body)
		at, mac, _ := strings.Cut(strings.TrimPrefix(request.Header.Get("Freshet-Signature"), "t="), ",v1=")
		sum := hmac.New(sha256.New, []byte("secret"))
		fmt.Fprintf(sum, "%s.%s", at, body)
		if mac != hex.EncodeToString(sum.Sum(nil)) {
			t.Errorf("signature %q of %s", request.Header.Get("Freshet-Signature"), body)
		}
		if tries < 3 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		var view shown
		if err := json.Unmarshal(body, &view); err != nil {
			t.Error(err)
		}
		told <- view
	}))
	defer listener.Close()
	js := r.js(t)
	startWorker(t, url, 1, func(d *queue.Delivery) queue.Result {
		if err := queue.AnnounceEnd(t.Context(), js, d.Envelope); err != nil { // a supervisor does so once the result is stored
			t.Error(err)
		}
		return queue.Result{ContentType: d.ContentType, Body: d.Body}
	})
	header := http.Header{"Freshet-Callback": {listener.URL + "/done"}, "Content-Type": {"application/json"}}
	call := r.show(t, http.MethodPost, spawnEcho, []byte("1"), header, http.StatusAccepted).Call
	select {
	case view := <-told:
		if view.Call != call || view.Status != "done" || string(view.Output) != "1" {
			t.Errorf("told %+v", view)
		}
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
}

func TestWrongCallbacksAreRefused(t *testing.T) {
	url, r := newEchoRig(t)
	if status, _ := r.problemOf(t, http.MethodPost, spawnEcho, []byte("1"), http.Header{"Freshet-Callback": {"https://example.com"}}); status != http.StatusBadRequest {
		t.Errorf("by a gateway without a secret: %d", status)
	}
	public := newRig(t, url, functions(echo()), func(c *gateway.Config) { c.CallbackSecret = "secret" }).up(t)
	for _, address := range []string{"ftp://example.com", "example.com", "https://a:b@example.com", "https://", "https://example.com/é"} {
		if status, _ := public.problemOf(t, http.MethodPost, spawnEcho, []byte("1"), http.Header{"Freshet-Callback": {address}}); status != http.StatusBadRequest {
			t.Errorf("%q: %d", address, status)
		}
	}
}
