package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"
)

func loadDocument(t *testing.T, r *rig) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData(r.do(t, http.MethodGet, "/openapi.json", nil, nil).body)
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return document
}

// TestDocumentIsTrue: each operation is there, takes each parameter it names and no other.
func TestDocumentIsTrue(t *testing.T) {
	_, r := newEchoRig(t)
	document := loadDocument(t, r)
	if document.Paths.Len() < 25 {
		t.Errorf("%d paths", document.Paths.Len())
	}
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			names := []string{"no-such-parameter"}
			for _, parameter := range operation.Parameters {
				if parameter.Value.In == "query" {
					names = append(names, parameter.Value.Name)
				}
			}
			if len(names) == 1 {
				continue
			}
			for _, name := range names {
				a := r.do(t, method, fill(path, "x")+"?"+name+"=%00", []byte(`{"every":"1h"}`), nil)
				refused := strings.Contains(string(a.body), "no such parameter")
				if refused != (name == "no-such-parameter") && a.status == http.StatusBadRequest {
					t.Errorf("%s %s, parameter %s: %d %s", method, path, name, a.status, a.body)
				}
			}
		}
	}
}

func fill(path, with string) string {
	for {
		from := strings.IndexByte(path, '{')
		if from < 0 {
			return path
		}
		path = path[:from] + url.PathEscape(with) + path[from+strings.IndexByte(path[from:], '}')+1:]
	}
}

// TestNothingSentBreaksTheGateway: whatever is sent to any operation of the document, the answer is one that it names.
func TestNothingSentBreaksTheGateway(t *testing.T) {
	url, r := newEchoRig(t)
	startWorker(t, url, 8, nil)
	document := loadDocument(t, r)
	var paths []string
	for path := range document.Paths.Map() {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	schema := document.Components.Schemas["Problem"].Value
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.SampledFrom(paths).Draw(t, "path")
		operations := document.Paths.Value(path).Operations()
		var methods []string
		for method := range operations {
			methods = append(methods, method)
		}
		slices.Sort(methods)
		method := rapid.SampledFrom(methods).Draw(t, "method")
		operation := operations[method]
		status, header, body := send(t, r, method, path, operation)
		if operation.Responses.Status(status) != nil && status < 300 || status == http.StatusAccepted || status == http.StatusSeeOther || status == http.StatusCreated {
			return
		}
		var problem any
		if err := json.Unmarshal(body, &problem); err != nil || header.Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%s %s: %d %s", method, path, status, body)
		}
		if err := schema.VisitJSON(problem); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, body)
		}
		if status >= 500 && header.Get("Freshet-Error") == "internal" {
			t.Fatalf("%s %s: %d %s", method, path, status, body)
		}
	})
}

// send makes up a request.
func send(t *rapid.T, r *rig, method, path string, operation *openapi3.Operation) (int, http.Header, []byte) {
	known := rapid.SampledFrom([]string{"demo", "echo", "x", "01M888PRN6KT6CMZ0QP0000001", "01M888PRN6KT6CMZ0QP0000000", "*", ".", "a.b", "\x00", "é"})
	path = strings.NewReplacer("{app}", "demo", "{function}", "echo").Replace(path)
	path = fill(path, rapid.OneOf(known, rapid.StringN(1, 20, 40)).Draw(t, "name"))
	query := url.Values{}
	for _, parameter := range operation.Parameters {
		if name := parameter.Value.Name; parameter.Value.In == "query" && name != "follow" && rapid.Bool().Draw(t, name) {
			values := rapid.SampledFrom([]string{"", "0", "1", "-1", "true", "10ms", "1h", "done", "input", "stop", "*", "demo.echo", "99999999999999999999", "default"})
			query.Set(name, rapid.OneOf(values, rapid.String()).Draw(t, "value"))
		}
	}
	query.Del("wait")
	bodies := rapid.SampledFrom([]string{"", "{}", "null", "[1,2", `{"n":1}`, "1\n2\n3", `{"every":"1h"}`, `{"cron":"* * * * *"}`, `{"name":"x","verbs":["read"]}`, `{"app":"demo"}`, "\xff\xfe"})
	header := http.Header{"Content-Type": {"application/json"}, "Freshet-Timeout": {"2s"}}
	if rapid.Bool().Draw(t, "key") {
		header.Set("Idempotency-Key", rapid.SampledFrom([]string{"k", strconv.Itoa(1 << 30), strings.Repeat("k", 300)}).Draw(t, "key is"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, err := r.try(ctx, method, path+"?"+query.Encode(), []byte(bodies.Draw(t, "body")), header)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a.status, a.header, a.body
}
