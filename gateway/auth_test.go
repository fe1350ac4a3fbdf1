package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const rootToken = "frt_root_test"

func bearer(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
}

func newAuthRig(t *testing.T) (string, *rig) {
	t.Helper()
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	other := spec.Function{Namespace: "prod", App: "demo", Name: "echo"}
	third := spec.Function{App: "demo", Name: "third"}
	return url, newRig(t, url, functions(echo(), other, third), func(c *gateway.Config) {
		c.Auth, c.RootToken, c.Origins = true, rootToken, []string{"https://app.example"}
	}).up(t)
}

type madeToken struct {
	ID, Token, Hash string
	Expires         time.Time
}

func (r *rig) makeToken(t *testing.T, request string) madeToken {
	t.Helper()
	a := r.do(t, http.MethodPost, "/v1/tokens", []byte(request), bearer(rootToken))
	var made madeToken
	if err := json.Unmarshal(a.body, &made); err != nil || a.status != http.StatusCreated || made.Hash != "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	eventually.True(t, "the gateway knows the token", func() bool {
		return r.do(t, http.MethodGet, "/v1/functions?namespace=none", nil, bearer(made.Token)).status != http.StatusUnauthorized
	})
	return made
}

func TestTokensAllowWhatTheySay(t *testing.T) {
	url, r := newAuthRig(t)
	startWorker(t, url, 4, nil)
	all := r.makeToken(t, `{"name":"all","verbs":["call","read"]}`).Token
	reader := r.makeToken(t, `{"name":"reader","verbs":["read"]}`).Token
	only := r.makeToken(t, `{"name":"only","verbs":["call","read"],"functions":["demo.echo"],"namespaces":["default"]}`).Token
	named := r.makeToken(t, `{"name":"named","verbs":["read"],"functions":["demo"]}`).Token
	call := r.show(t, http.MethodPost, spawnEcho, []byte("1"), bearer(all), http.StatusAccepted).Call
	third := r.show(t, http.MethodPost, "/v1/functions/demo/third/spawn", []byte("1"), bearer(all), http.StatusAccepted).Call
	for _, c := range []struct {
		token, method, path string
		want                int
	}{
		{"", "POST", callEcho, 401},
		{"frt_nobody_xyz", "POST", callEcho, 401},
		{all[:len(all)-1] + "x", "POST", callEcho, 401},
		{rootToken, "POST", callEcho, 200},
		{all, "POST", callEcho, 200},
		{reader, "POST", callEcho, 403},
		{reader, "GET", "/v1/calls/" + call, 200},
		{reader, "POST", "/v1/calls/" + call + "/cancel", 403},
		{reader, "PUT", "/v1/apps/demo", 403},
		{all, "GET", "/v1/tokens", 403},
		{only, "POST", callEcho, 200},
		{only, "POST", callEcho + "?namespace=prod", 403},
		{only, "POST", "/v1/functions/demo/third/call", 403},
		{only, "GET", "/v1/calls/" + call, 200},
		{only, "GET", "/v1/calls/" + third, 403},
		{only, "GET", "/v1/calls", 403},
		{only, "GET", "/v1/calls?function=demo.echo", 200},
		{only, "GET", "/v1/calls?function=demo.third", 403},
		{only, "GET", "/v1/dead?function=demo.third", 403},
		{only, "GET", "/v1/functions?namespace=*", 403},
		{only, "GET", "/v1/workers?function=echo", 403},
		{only, "GET", "/v1/workers?app=demo&function=echo", 200},
		{only, "GET", "/v1/functions/demo/third/outputs/" + third, 403},
		{named, "GET", "/v1/workers?function=demo", 403},
		{"", "GET", "/healthz", 200},
	} {
		header := bearer(c.token)
		if c.token == "" {
			header = nil
		}
		if a := r.do(t, c.method, c.path, []byte("1"), header); a.status != c.want {
			t.Errorf("%s %s with %.12s: %d, want %d: %s", c.method, c.path, c.token, a.status, c.want, a.body)
		}
	}
}

func TestTokensAreRotatedAndRevoked(t *testing.T) {
	_, r := newAuthRig(t)
	made := r.makeToken(t, `{"name":"ci","verbs":["read"]}`)
	works := func(token string) bool {
		return r.do(t, http.MethodGet, "/v1/functions", nil, bearer(token)).status == http.StatusOK
	}
	if !works(made.Token) {
		t.Fatal("a new token does not work")
	}
	list := r.do(t, http.MethodGet, "/v1/tokens", nil, bearer(rootToken))
	if !strings.Contains(string(list.body), made.ID) || strings.Contains(string(list.body), "hash") || strings.Contains(string(list.body), made.Token) {
		t.Errorf("the list: %s", list.body)
	}
	var rotated madeToken
	if a := r.do(t, http.MethodPost, "/v1/tokens/"+made.ID+"/rotate", nil, bearer(rootToken)); json.Unmarshal(a.body, &rotated) != nil || rotated.ID != made.ID {
		t.Fatalf("rotate: %s", a.body)
	}
	eventually.True(t, "the new secret works and the old one does not", func() bool { return works(rotated.Token) && !works(made.Token) })
	secret := strings.TrimPrefix(rotated.Token, "frt_"+made.ID+"_")
	if a := r.do(t, http.MethodGet, "/v1/functions", nil, http.Header{"Freshet-Key": {made.ID}, "Freshet-Secret": {secret}}); a.status != http.StatusOK {
		t.Errorf("id and secret in headers of their own: %d", a.status)
	}
	if a := r.do(t, http.MethodDelete, "/v1/tokens/"+made.ID, nil, bearer(rootToken)); a.status != http.StatusNoContent {
		t.Fatalf("revoke: %s", a.body)
	}
	eventually.True(t, "it does not work any more", func() bool { return !works(rotated.Token) })
	if status, _ := r.problemOf(t, http.MethodDelete, "/v1/tokens/"+made.ID, nil, bearer(rootToken)); status != http.StatusNotFound {
		t.Errorf("revoked twice: %d", status)
	}
}

func TestTokensExpireAndHaveRates(t *testing.T) {
	_, r := newAuthRig(t)
	slow := r.makeToken(t, `{"name":"slow","verbs":["read"],"rate":0.01}`)
	if status, kind := r.problemOf(t, http.MethodGet, "/v1/functions", nil, bearer(slow.Token)); status != http.StatusTooManyRequests || kind != "rate_limited" {
		t.Errorf("beyond the rate: %d %s", status, kind)
	}
	short := r.makeToken(t, `{"name":"short","verbs":["read"],"ttl":"1s"}`)
	var over answer
	eventually.True(t, "it expires", func() bool {
		over = r.do(t, http.MethodGet, "/v1/functions", nil, bearer(short.Token))
		return over.status == http.StatusUnauthorized
	})
	if said := problemOf(t, over).Error; said.Kind != "token_expired" || !strings.Contains(said.Message, short.Expires.Format(time.RFC3339)) ||
		!strings.Contains(said.Message, "freshet token create") {
		t.Errorf("an expired token is told %+v; it ended at %s", said, short.Expires)
	}
	if status, kind := r.problemOf(t, http.MethodPost, "/v1/tokens/"+short.ID+"/rotate", nil, bearer(rootToken)); status != http.StatusConflict || kind != "conflict" {
		t.Errorf("an expired token was rotated: %d %s", status, kind)
	}
	for _, request := range []string{
		``, `{`, `{"name":"x"}`, `{"name":"x","verbs":["fly"]}`, `{"verbs":["read"],"rate":-1}`, `{"verbs":["read"],"ttl":"tomorrow"}`,
		`{"verbs":["read"],"nmae":1}`, `{"verbs":["read"]} {}`, `{"verbs":["read"],"namespaces":["a b"]}`, `{"verbs":["read"],"functions":["a.b.c"]}`,
		`{"verbs":["read"],"functions":["*"]}`,
	} {
		if status, kind := r.problemOf(t, http.MethodPost, "/v1/tokens", []byte(request), bearer(rootToken)); status != http.StatusBadRequest || kind != wire.KindInput {
			t.Errorf("%s: %d %s", request, status, kind)
		}
	}
}

// TestImagesForDocker: registries' clients show a token as a password, when they are told to.
func TestImagesForDocker(t *testing.T) {
	_, r := newAuthRig(t)
	reader := r.makeToken(t, `{"name":"reader","verbs":["read"]}`).Token
	caller := r.makeToken(t, `{"name":"caller","verbs":["call"]}`).Token
	for token, want := range map[string]int{reader: http.StatusOK, rootToken: http.StatusOK, caller: http.StatusForbidden, "frt_wrong": http.StatusUnauthorized, "": http.StatusUnauthorized} {
		shown := http.Header{}
		if token != "" {
			shown.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("anybody:"+token)))
		}
		a := r.do(t, http.MethodGet, "/v2/", nil, shown)
		if a.status != want || want == http.StatusUnauthorized && a.header.Get("Www-Authenticate") != `Basic realm="freshet"` {
			t.Errorf("the token %q: %d %v %s", token, a.status, a.header, a.body)
		}
	}
}

func TestPagesOfKnownOriginsMayCall(t *testing.T) {
	_, r := newAuthRig(t)
	preflight := http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"POST"}}
	if a := r.do(t, http.MethodOptions, callEcho, nil, preflight); a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("preflight: %d %v", a.status, a.header)
	}
	foreign := http.Header{"Origin": {"https://evil.example"}, "Access-Control-Request-Method": {"POST"}}
	if a := r.do(t, http.MethodOptions, callEcho, nil, foreign); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a foreign origin: %d %v", a.status, a.header)
	}
}

// TestBadRequestsAreRefused at every address, each as a problem document, and leave nothing behind.
func TestBadRequestsAreRefused(t *testing.T) {
	_, r := newEchoRig(t)
	id := queue.CallOfInput("01M888PRN6KT6CMZ0QP0000000", 0)
	big := strings.Repeat("x", queue.MaxInline+1)
	for _, c := range []struct {
		method, path, body string
		header             http.Header
		want               int
	}{
		{"POST", "/v1/functions/demo/ecko/spawn", "1", nil, 404},
		{"GET", spawnEcho, "", nil, 405},
		{"POST", "/v1/functions/demo/ecko/stream", big, nil, 404},
		{"POST", spawnEcho + "?stram=true", "1", nil, 400},
		{"POST", spawnEcho, "1", http.Header{"Freshet-Keep": {"1ms"}}, 400},
		{"POST", spawnEcho, "1", http.Header{"Freshet-Timeout": {"soon"}}, 400},
		{"POST", batchEcho + "?from=3", "1", nil, 400},
		{"POST", batchEcho + "?batch=x", "1", nil, 400},
		{"POST", batchEcho + "?batch=01M888PRN6KT6CMZ0QP0000000", "1", nil, 404},
		{"POST", batchEcho, "\"" + big + "\"", nil, 413},
		{"POST", mapEcho + "?window=0", "1", nil, 400},
		{"POST", mapEcho + "?sent=0", "1", nil, 400},
		{"POST", mapEcho + "?order=random", "1", nil, 400},
		{"POST", mapEcho + "?on_error=panic", "1", nil, 400},
		{"POST", mapEcho + "?from=1", "1", nil, 400},
		{"POST", mapEcho + "?batch=" + id, "1", nil, 400},
		{"POST", "/v1/functions/demo/echo/stream", "1", http.Header{"Idempotency-Key": {"k"}}, 400},
		{"POST", callEcho + "?redirect=true&wait=1h", "1", nil, 400},
		{"GET", "/v1/calls/nonsense", "", nil, 400},
		{"GET", "/v1/calls/" + id, "", nil, 404},
		{"GET", "/v1/calls/" + id + "?wait=-1s", "", nil, 400},
		{"GET", "/v1/calls/" + id + "/result", "", nil, 404},
		{"GET", "/v1/calls/" + id + "/values?after=x", "", nil, 400},
		{"POST", "/v1/calls/" + id + "/cancel", "", nil, 404},
		{"GET", "/v1/calls?status=odd", "", nil, 400},
		{"GET", "/v1/calls?limit=0", "", nil, 400},
		{"GET", "/v1/calls?since=yesterday", "", nil, 400},
		{"GET", "/v1/calls?function=a.b.*", "", nil, 400},
		{"GET", "/v1/batches/" + id[:19] + "0000000", "", nil, 404},
		{"GET", "/v1/batches/" + id[:19] + "0000000/results?from=x", "", nil, 400},
		{"GET", "/v1/dead/" + id, "", nil, 404},
		{"POST", "/v1/dead/" + id + "/replay", "", nil, 404},
		{"PATCH", "/v1/calls/" + id, "", nil, 405},
	} {
		if status, _ := r.problemOf(t, c.method, c.path, []byte(c.body), c.header); status != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, status, c.want)
		}
	}
	depth, err := queue.Depth(t.Context(), r.js(t), echoKey())
	if err != nil || depth != 0 {
		t.Errorf("%d calls were left in the queue, %v", depth, err)
	}
}
