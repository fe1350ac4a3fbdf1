package gateway_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// fuzzed is a gateway that anything may be sent to, and what its document says.
type fuzzed struct {
	*rig

	operations []operation
	problem    *openapi3.Schema
}

func newFuzzed(tb testing.TB) fuzzed {
	tb.Helper()
	nats := startNATS(tb, tb.TempDir(), 0).ClientURL()
	known := functions(echo(), spec.Function{Namespace: "prod", App: "demo", Name: "echo"})
	r := newRig(tb, nats, known, func(c *gateway.Config) {
		c.MaxPayload, c.BodyWait = 2<<20, time.Second
	}).up(tb)
	startWorker(tb, nats, 8, nil)
	document := loadDocument(tb, r)
	return fuzzed{r, operations(document), document.Components.Schemas["Problem"].Value}
}

// sent is a request that was made up. Parts of a path that the document names are taken from names, those of functions stay mostly known.
type sent struct {
	operation           int
	names               string
	query, header, with string // a raw query; the name and the value of a header
	contentType         string
	body                []byte
}

// send sends it and tells what is wrong of the answer.
func (f fuzzed) send(s sent) error {
	of := f.operations[s.operation%len(f.operations)]
	path := of.path
	if !strings.HasPrefix(s.names, "!") {
		path = strings.NewReplacer("{app}", "demo", "{function}", "echo").Replace(path)
	}
	name := strings.TrimPrefix(s.names, "!")
	if strings.Contains(path, "{") && strings.Trim(name, ".") == "" || path == "/v1/apps/demo" && of.method == http.MethodDelete {
		return nil // such a path is another one; and a deletion waits until a function is gone, which none is here
	}
	path = fill(path, name)
	// No answer may take for ever: one that follows would, and one that waits for a call may.
	if query, err := url.ParseQuery(s.query); err == nil && (query.Has("follow") || query.Has("wait")) {
		query.Del("follow")
		query.Del("wait")
		s.query = query.Encode()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	header := http.Header{"Content-Type": {s.contentType}}
	if len(s.with) < 8<<10 && !strings.EqualFold(s.header, "Expect") && // which the HTTP server answers by itself
		strings.Trim(s.header, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") == "" && s.header != "" {
		header.Set(s.header, s.with)
	}
	header.Set("Freshet-Timeout", "5s")
	if _, err := url.Parse("http://x/?" + s.query); err != nil {
		s.query = url.QueryEscape(s.query)
	}
	a, err := f.try(ctx, of.method, path+"?"+s.query, s.body, header)
	if err != nil && (strings.Contains(err.Error(), "invalid header") || strings.Contains(err.Error(), "parse \"")) {
		return nil // the client does not send it
	}
	if err != nil {
		return err
	}
	return of.check(f.problem, a)
}

func ids() []string {
	return []string{
		"x", "demo", "!demo", "a.b", "*", "...x", "é", "\x00", "%2f", strings.Repeat("n", 300), "01M888PRN6KT6CMZ0QP0000001", "01M888PRN6KT6CMZ0QP0000000",
		"01ARZ3NDEKTSV4RRFFQ69G5FAV", strings.Repeat("a", 64), "abcdefghijkl", "sha256:" + strings.Repeat("a", 64),
	}
}

func values() []string {
	return []string{
		"", "0", "-1", "true", "10ms", "200h", "done", "input", "*", "demo.echo", "99999999999999999999", "prod", "\x00", "%", "é", strings.Repeat("v", 2000),
		"01M888PRN6KT6CMZ0QP0000000",
	}
}

func headers() []string {
	return []string{
		"Idempotency-Key", "Freshet-Keep", "Freshet-Callback", "Freshet-Parameters", "Traceparent", "Range", "If-Range", "Last-Event-Id", "Accept",
		"Authorization", "Freshet-Key", "Freshet-Secret", "Freshet-Namespace", "Origin", "Content-Encoding", "Host", "Te", "X-Forwarded-For",
	}
}

// bodies of each type that operations take, and hostile ones.
func bodies() []string {
	return []string{
		"", "{}", "null", "[1,2", `{"n":1}`, "1\n2\n3", "1\n{\n3", `{"every":"1h"}`, `{"cron":"* * * * *","input":{"a":1}}`, `{"every":"-1h"}`, `{"every":1e999}`,
		`{"name":"x","verbs":["read"],"ttl":"1h","rate":1}`, `{"name":"x","verbs":["read"],"ttl":"9999999h"}`, `{"verbs":null}`, `{"format":1,"app":"demo","functions":[]}`,
		`{"format":1,"app":"x","functions":[{"app":"x","name":"f","handler":{"type":"exec","command":["/bin/true"]},"image":"docker://x"}]}`,
		`{"format":1,"app":"x","functions":[null]}`, `{"format":9}`, `{"build":{"dockerfile":"FROM scratch"}}`, `{"build":{"context":"sha256:0","dockerfile":"FROM scratch"}}`,
		`{"build":{"dockerfile":"FROM scratch"},"secrets":{"a":"!"}}`, `{"values":{"A":"b"}}`, "\xff\xfe", "\x00", `"` + strings.Repeat("\\u0000", 100) + `"`,
		strings.Repeat("[", 20000), strings.Repeat(`{"a":`, 9000), `{"a":1}{"a":2}`, strings.Repeat("1\n", 300),
	}
}

// FuzzAPI sends whatever comes to the operations of the gateway's own document: every answer is one that the document names, and none
// is an error of the gateway itself. What testdata/fuzz/FuzzAPI holds is sent in every run of the tests; tools/test-long goes on.
func FuzzAPI(f *testing.F) {
	rig := newFuzzed(f)
	for i := range rig.operations {
		f.Add(uint8(i), "x", "namespace=default", "Idempotency-Key", "k", "application/json", []byte("{}"))
	}
	f.Fuzz(func(t *testing.T, operation uint8, names, query, header, with, contentType string, body []byte) {
		if strings.Trim(contentType, "abcdefghijklmnopqrstuvwxyz/-+;=") != "" || len(body) > 64<<10 || len(query) > 8<<10 || len(names) > 4<<10 {
			t.Skip()
		}
		if err := rig.send(sent{int(operation), names, query, header, with, contentType, body}); err != nil {
			t.Error(err)
		}
	})
}

// TestNothingSentBreaksTheGateway: each operation of the document is sent each body, each of its parameters with each value, and each
// header, and then whatever chance makes of them.
func TestNothingSentBreaksTheGateway(t *testing.T) {
	rig := newFuzzed(t)
	fails := func(s sent) {
		t.Helper()
		if err := rig.send(s); err != nil {
			t.Error(err)
		}
	}
	for i, of := range rig.operations {
		for _, name := range ids() {
			fails(sent{operation: i, names: name, contentType: "application/json", body: []byte("{}")})
		}
		for _, name := range of.query() {
			for _, value := range values() {
				fails(sent{operation: i, names: "x", query: url.Values{name: {value}}.Encode(), contentType: "application/json", body: []byte("1")})
			}
		}
		if of.body() == "" {
			continue
		}
		for _, body := range bodies() {
			fails(sent{operation: i, names: "x", contentType: of.body(), body: []byte(body)})
		}
		for _, header := range headers() {
			for _, value := range []string{"x", "-1s", strings.Repeat("h", 4000)} {
				fails(sent{operation: i, names: "x", header: header, with: value, contentType: "application/json", body: []byte("1")})
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		of := rapid.IntRange(0, len(rig.operations)-1).Draw(t, "operation")
		query := url.Values{}
		for _, name := range rig.operations[of].query() {
			if rapid.Bool().Draw(t, name) {
				query.Set(name, rapid.OneOf(rapid.SampledFrom(values()), rapid.String()).Draw(t, "value"))
			}
		}
		if err := rig.send(sent{
			operation: of, names: rapid.OneOf(rapid.SampledFrom(ids()), rapid.StringN(1, 20, 40)).Draw(t, "names"), query: query.Encode(),
			header: rapid.SampledFrom(headers()).Draw(t, "header"), with: rapid.SampledFrom(values()).Draw(t, "with"), contentType: "application/json",
			body: []byte(rapid.OneOf(rapid.SampledFrom(bodies()), rapid.String()).Draw(t, "body")),
		}); err != nil {
			t.Fatal(err)
		}
	})
}
