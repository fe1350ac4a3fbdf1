package index_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"reflect"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/examples/gosearch/index"
)

var build = sync.OnceValues(func() (*index.Index, error) {
	ctx := context.Background() // it outlives the test that builds the index for all
	root, err := index.GOROOT(ctx)
	if err != nil {
		return nil, err
	}
	return index.Build(ctx, root)
})

func built(t testing.TB) *index.Index {
	t.Helper()
	x, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestNamesComeFirst(t *testing.T) {
	for query, want := range map[string]struct{ pkg, symbol string }{
		"http.Server":                 {"net/http", "Server"},
		"net/http.Server":             {"net/http", "Server"},
		"strings.Builder.WriteString": {"strings", "Builder.WriteString"},
		"Builder.WriteString":         {"strings", "Builder.WriteString"},
		"context.WithTimeout":         {"context", "WithTimeout"},
		"sort.Slice":                  {"sort", "Slice"},
	} {
		hits := built(t).Search(query, 3)
		if len(hits) == 0 || hits[0].Package != want.pkg || hits[0].Symbol != want.symbol {
			t.Errorf("%q: got %+v, want %v first", query, hits, want)
		}
	}
}

func TestWordsFindTheirSymbol(t *testing.T) {
	for query, symbol := range map[string]string{
		"round tripper":                     "RoundTripper",
		"read all bytes until eof":          "ReadAll",
		"context cancelled after a timeout": "WithTimeout",
	} {
		found := false
		for _, hit := range built(t).Search(query, 20) {
			found = found || hit.Symbol == symbol
		}
		if !found {
			t.Errorf("%q does not find %s", query, symbol)
		}
	}
}

func TestAnswersAreTheSameEachTime(t *testing.T) {
	first := built(t).Search("reader", 50)
	for range 5 {
		if again := built(t).Search("reader", 50); !reflect.DeepEqual(first, again) {
			t.Fatal("the order changed")
		}
	}
}

func TestHitsSayWhere(t *testing.T) {
	hit := built(t).Search("strings.Builder", 1)[0]
	if hit.File != "src/strings/builder.go" || hit.Line < 10 || hit.Doc == "" || hit.Kind != "type" {
		t.Errorf("got %+v", hit)
	}
}

func TestEmptyQueryIsNone(t *testing.T) {
	if hits := built(t).Search("  ", 5); hits != nil {
		t.Errorf("got %v", hits)
	}
	if hits := built(t).Search("qqqzzzxxx", 5); hits == nil || len(hits) != 0 {
		t.Errorf("nothing fits: got %v, want an empty list", hits)
	}
}

func TestQueriesFindSomething(t *testing.T) {
	file, err := os.Open("../queries.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	lines, empty := 0, 0
	for scanner := bufio.NewScanner(file); scanner.Scan(); lines++ {
		var query struct{ Q string }
		if err := json.Unmarshal(scanner.Bytes(), &query); err != nil {
			t.Fatalf("line %d: %v", lines+1, err)
		}
		if lines%100 == 0 && len(built(t).Search(query.Q, 1)) == 0 {
			empty++
		}
	}
	if lines < 10_000 || empty > 2 {
		t.Errorf("%d lines, %d of every hundredth found nothing", lines, empty)
	}
}

func BenchmarkQuery(b *testing.B) {
	x := built(b)
	for b.Loop() {
		x.Search("http server timeout", 5)
	}
}
