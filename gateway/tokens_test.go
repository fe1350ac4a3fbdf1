package gateway_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
)

// spread is how soon a change of a token is known to every gateway, as the API's page says.
const spread = 5 * time.Second

func withAuth(c *gateway.Config) { c.Auth, c.RootToken = true, rootToken }

// within waits for what must be so in a time, and fails when it takes longer.
func within(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	began := time.Now()
	eventually.True(t, what, condition)
	if took := time.Since(began); took > limit {
		t.Errorf("%s after %s, not within %s", what, took, limit)
	}
}

func (r *rig) takes(t *testing.T, token string) bool {
	t.Helper()
	return r.do(t, http.MethodGet, "/v1/functions", nil, bearer(token)).status == http.StatusOK
}

func (r *rig) rotate(t *testing.T, id, query string) madeToken {
	t.Helper()
	var made madeToken
	a := r.do(t, http.MethodPost, "/v1/tokens/"+id+"/rotate"+query, nil, bearer(rootToken))
	if json.Unmarshal(a.body, &made) != nil || a.status != http.StatusOK || made.Hash != "" || strings.Contains(string(a.body), "hash") {
		t.Fatalf("rotate: %d %s", a.status, a.body)
	}
	return made
}

// TestTokensChangeAtEveryGateway: what one gateway is told of a token the other one does in the time that is documented, and a third
// one that starts later.
func TestTokensChangeAtEveryGateway(t *testing.T) {
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	first := newRig(t, url, functions(echo()), withAuth).up(t)
	second := newRig(t, url, functions(echo()), withAuth).up(t)
	made := first.makeToken(t, `{"name":"ci","verbs":["read"],"ttl":"1h"}`)
	within(t, spread, "the other gateway knows it", func() bool { return second.takes(t, made.Token) })
	graced := first.rotate(t, made.ID, "?grace=1h")
	within(t, spread, "the other gateway knows the new secret", func() bool { return second.takes(t, graced.Token) })
	if !second.takes(t, made.Token) || !first.takes(t, made.Token) {
		t.Error("the old secret ended before its grace")
	}
	first.close()
	third := newRig(t, url, functions(echo()), withAuth).up(t)
	within(t, spread, "a gateway that starts knows both", func() bool { return third.takes(t, graced.Token) && third.takes(t, made.Token) })
	last := third.rotate(t, made.ID, "")
	within(t, spread, "without a grace all others end", func() bool {
		return second.takes(t, last.Token) && !second.takes(t, graced.Token) && !second.takes(t, made.Token)
	})
	if a := third.do(t, http.MethodDelete, "/v1/tokens/"+made.ID, nil, bearer(rootToken)); a.status != http.StatusNoContent {
		t.Fatalf("revoke: %s", a.body)
	}
	within(t, spread, "a revoked token works nowhere", func() bool { return !second.takes(t, last.Token) && !third.takes(t, last.Token) })
}

// TestGraceOfRotatedSecretsEnds, and says so; a token has so many of them at most.
func TestGraceOfRotatedSecretsEnds(t *testing.T) {
	_, r := newAuthRig(t)
	made := r.makeToken(t, `{"name":"ci","verbs":["read"]}`)
	latest := r.rotate(t, made.ID, "?grace=1500ms")
	if !r.takes(t, made.Token) {
		t.Error("the old secret ended before its grace")
	}
	var over answer
	eventually.True(t, "the grace ends", func() bool {
		over = r.do(t, http.MethodGet, "/v1/functions", nil, bearer(made.Token))
		return over.status == http.StatusUnauthorized
	})
	if said := problemOf(t, over).Error; said.Kind != "token_expired" || !strings.Contains(said.Message, "rotation") {
		t.Errorf("a replaced secret is told %+v", said)
	}
	if !r.takes(t, latest.Token) {
		t.Error("the new secret does not work")
	}
	for range 8 {
		r.rotate(t, made.ID, "?grace=1h")
	}
	if status, kind := r.problemOf(t, http.MethodPost, "/v1/tokens/"+made.ID+"/rotate?grace=1h", nil, bearer(rootToken)); status != http.StatusConflict || kind != "conflict" {
		t.Errorf("a ninth secret: %d %s", status, kind)
	}
	for _, grace := range []string{"", "soon", "-1s", "200h"} {
		if status, kind := r.problemOf(t, http.MethodPost, "/v1/tokens/"+made.ID+"/rotate?grace="+grace, nil, bearer(rootToken)); status != http.StatusBadRequest || kind != "input" {
			t.Errorf("grace %q: %d %s", grace, status, kind)
		}
	}
}

// TestUseOfTokensIsNoted at most once a minute, beside what gateways follow, and for all of them; hashes alone are kept.
func TestUseOfTokensIsNoted(t *testing.T) {
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	first := newRig(t, url, functions(echo()), withAuth).up(t)
	made := first.makeToken(t, `{"name":"ci","verbs":["read"]}`)
	bucket, err := first.js(t).KeyValue(t.Context(), queue.TokensBucket)
	if err != nil {
		t.Fatal(err)
	}
	var written jetstream.KeyValueEntry
	eventually.True(t, "the first use is written", func() bool {
		written, err = bucket.Get(t.Context(), made.ID+".used")
		return err == nil
	})
	for began := time.Now(); time.Since(began) < 3*time.Second; {
		if !first.takes(t, made.Token) {
			t.Fatal("the token does not work")
		}
	}
	if again, err := bucket.Get(t.Context(), made.ID+".used"); err != nil || again.Revision() != written.Revision() {
		t.Errorf("written again within seconds: %v", err)
	}
	kept, err := bucket.Get(t.Context(), made.ID)
	if err != nil || strings.Contains(string(kept.Value()), made.Token) {
		t.Errorf("the secret is kept: %v", err)
	}
	if sum := sha256.Sum256([]byte(made.Token)); !strings.Contains(string(kept.Value()), hex.EncodeToString(sum[:])) {
		t.Error("the hash is not kept")
	}
	used := func(r *rig) time.Time {
		var list []struct {
			ID       string
			LastUsed time.Time `json:"last_used"`
		}
		if a := r.do(t, http.MethodGet, "/v1/tokens", nil, bearer(rootToken)); json.Unmarshal(a.body, &list) != nil || len(list) != 1 || list[0].ID != made.ID {
			t.Fatalf("%s", a.body)
		}
		return list[0].LastUsed
	}
	late := used(first)
	first.close() // which writes what it noted
	second := newRig(t, url, functions(echo()), withAuth).up(t)
	if now := used(second); !now.Equal(late) || time.Since(now) > time.Minute {
		t.Errorf("another gateway says %s, the first one said %s", now, late)
	}
	if a := second.do(t, http.MethodDelete, "/v1/tokens/"+made.ID, nil, bearer(rootToken)); a.status != http.StatusNoContent {
		t.Fatalf("revoke: %s", a.body)
	}
	if keys, err := bucket.Keys(t.Context()); err == nil {
		t.Errorf("a revoked token left %v", keys)
	}
}

// TestAdminsStayWithinTheirScope: an admin of one namespace makes no token for another one, and sees none.
func TestAdminsStayWithinTheirScope(t *testing.T) {
	_, r := newAuthRig(t)
	admin := r.makeToken(t, `{"name":"admin","verbs":["admin"],"namespaces":["prod"],"functions":["demo"]}`).Token
	other := r.makeToken(t, `{"name":"other","verbs":["read"],"namespaces":["default"]}`)
	for request, want := range map[string]int{
		`{"name":"a","verbs":["call"],"namespaces":["prod"],"functions":["demo.echo"]}`:           http.StatusCreated,
		`{"name":"a","verbs":["call"],"namespaces":["prod"]}`:                                     http.StatusForbidden,
		`{"name":"a","verbs":["call"],"functions":["demo"]}`:                                      http.StatusForbidden,
		`{"name":"a","verbs":["call"],"namespaces":["prod","default"],"functions":["demo.echo"]}`: http.StatusForbidden,
		`{"name":"a","verbs":["call"],"namespaces":["prod"],"functions":["demos"]}`:               http.StatusForbidden,
	} {
		if a := r.do(t, http.MethodPost, "/v1/tokens", []byte(request), bearer(admin)); a.status != want {
			t.Errorf("%s: %d %s", request, a.status, a.body)
		}
	}
	for _, c := range [][2]string{{http.MethodDelete, ""}, {http.MethodPost, "/rotate"}} {
		if a := r.do(t, c[0], "/v1/tokens/"+other.ID+c[1], nil, bearer(admin)); a.status != http.StatusForbidden {
			t.Errorf("%s of another namespace's: %d", c[0], a.status)
		}
	}
	if list := r.do(t, http.MethodGet, "/v1/tokens", nil, bearer(admin)); strings.Contains(string(list.body), other.ID) || list.status != http.StatusOK {
		t.Errorf("the list: %s", list.body)
	}
}

// TestNarrowTokensDeploy: a program has no namespace, so that a token for one may store it; what lacks is named.
func TestNarrowTokensDeploy(t *testing.T) {
	_, r := newAuthRig(t)
	narrow := r.makeToken(t, `{"name":"ci","verbs":["deploy"],"namespaces":["prod"],"functions":["shop"]}`).Token
	sum := sha256.Sum256([]byte("program"))
	if a := r.do(t, http.MethodPut, "/v1/blobs/"+hex.EncodeToString(sum[:]), []byte("program"), bearer(narrow)); a.status != http.StatusCreated {
		t.Errorf("store a program: %d %s", a.status, a.body)
	}
	if a := r.do(t, http.MethodPut, "/v1/apps/shop?namespace=prod", []byte(`{"format":1,"app":"shop","functions":[]}`), bearer(narrow)); a.status != http.StatusOK {
		t.Errorf("deploy: %d %s", a.status, a.body)
	}
	for path, lacks := range map[string]string{
		"/v1/apps/shop":                "namespace default, its namespaces are prod",
		"/v1/apps/demo?namespace=prod": "function demo, its functions are shop",
	} {
		if a := r.do(t, http.MethodPut, path, nil, bearer(narrow)); a.status != http.StatusForbidden || !strings.Contains(string(a.body), lacks) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := r.do(t, http.MethodDelete, "/v1/images/x", nil, bearer(narrow)); a.status != http.StatusForbidden {
		t.Errorf("remove everybody's image: %d %s", a.status, a.body)
	}
	if a := r.do(t, http.MethodPost, callEcho, nil, bearer(narrow)); !strings.Contains(string(a.body), "lacks the verb call, its verbs are deploy") {
		t.Errorf("call: %d %s", a.status, a.body)
	}
}
