package gateway_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

func loadDocument(t testing.TB, r *rig) *openapi3.T {
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

// operations are those of a document, in an order that stays.
func operations(document *openapi3.T) []operation {
	var all []operation
	for path, item := range document.Paths.Map() {
		for method, of := range item.Operations() {
			all = append(all, operation{of, method, path})
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.name(), b.name()) })
	return all
}

// operation is one of a document.
type operation struct {
	*openapi3.Operation

	method, path string
}

func (o operation) name() string { return o.method + " " + o.path }

// query are the names of the operation's parameters.
func (o operation) query() []string {
	var names []string
	for _, parameter := range o.Parameters {
		if parameter.Value.In == "query" {
			names = append(names, parameter.Value.Name)
		}
	}
	return names
}

// body is the content type of what the operation takes; empty for nothing.
func (o operation) body() string {
	if o.RequestBody == nil {
		return ""
	}
	for contentType := range o.RequestBody.Value.Content {
		return contentType
	}
	return ""
}

// check tells what of an answer the document does not say.
func (o operation) check(schema *openapi3.Schema, a answer) error {
	response := o.Responses.Status(a.status)
	if response == nil {
		return fmt.Errorf("%s: status %d is not in the document: %s", o.name(), a.status, a.body)
	}
	contentType, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	_, every := response.Value.Content["*/*"]
	_, this := response.Value.Content[contentType]
	if !every && !this && len(response.Value.Content) > 0 {
		return fmt.Errorf("%s: a %d of type %q is not in the document: %s", o.name(), a.status, contentType, a.body)
	}
	if contentType != "application/problem+json" {
		return nil
	}
	var document any
	if err := json.Unmarshal(a.body, &document); err != nil {
		return fmt.Errorf("%s: %w: %s", o.name(), err, a.body)
	}
	if err := schema.VisitJSON(document); err != nil {
		return fmt.Errorf("%s: %w: %s", o.name(), err, a.body)
	}
	if kind := a.header.Get("Freshet-Error"); kind == "internal" || !strings.Contains(*response.Value.Description, kind) {
		return fmt.Errorf("%s: %d is not for the kind %q: %s", o.name(), a.status, kind, a.body)
	}
	return nil
}

// TestEveryProblemIsDocumented: the kinds of problem in the source, those that the document names and those of the API's page are the
// same, with the same statuses.
func TestEveryProblemIsDocumented(t *testing.T) {
	_, r := newEchoRig(t)
	document := loadDocument(t, r)
	served := make(map[string]string)
	for name, response := range document.Components.Responses {
		_, kinds, _ := strings.Cut(*response.Value.Description, ": ")
		for _, kind := range strings.Split(kinds, ", ") {
			served[kind] = strings.TrimPrefix(name, "Problem")
		}
	}
	page, err := os.ReadFile("../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	written := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| ([0-9]{3}) \\| (`[^|]*`) \\|").FindAllStringSubmatch(string(page), -1) {
		for _, kind := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[2], -1) {
			written[kind[1]] = row[1]
		}
	}
	if !maps.Equal(served, written) {
		t.Errorf("docs/http-api.md has %v, the document %v", written, served)
	}
	var enum []string
	for _, kind := range document.Components.Schemas["Problem"].Value.Properties["error"].Value.Properties["kind"].Value.Enum {
		enum = append(enum, fmt.Sprint(kind))
	}
	slices.Sort(enum)
	if names := slices.Sorted(maps.Keys(served)); !slices.Equal(enum, names) {
		t.Errorf("the schema has %v, the responses %v", enum, names)
	}
	if source := kindsOfSource(t, "errors.go", "../sdk/wire/errors.go", "web/web.go"); !slices.Equal(enum, source) {
		t.Errorf("the schema has %v, the source %v", enum, source)
	}
}

// kindsOfSource are the constants of type Kind in files of Go.
func kindsOfSource(t *testing.T, files ...string) []string {
	t.Helper()
	var kinds []string
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			value, ok := node.(*ast.ValueSpec)
			if !ok || len(value.Values) != 1 || !strings.HasSuffix(types.ExprString(value.Type), "Kind") {
				return true
			}
			if literal, ok := value.Values[0].(*ast.BasicLit); ok {
				kinds = append(kinds, strings.Trim(literal.Value, `"`))
			}
			return true
		})
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
