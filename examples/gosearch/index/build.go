// Package index is a search index of Go source: every package, function, method, type, constant and variable is a document,
// ranked by BM25 over its name, signature, comment and body.
package index

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Weights of the fields a term may stand in.
const (
	nameWeight      = 8
	signatureWeight = 2
	commentWeight   = 3
	bodyWeight      = 1
)

// Index is built once and then only read, by any number of goroutines. Its postings lie in two flat arrays: less memory to
// freeze and thaw than a slice for each term.
type Index struct {
	symbols  []symbol
	terms    map[string]span
	postings []posting
	names    map[string][]uint32 // symbols by name, lower case: qualified, with receiver, and bare
	lengths  []float32
	average  float64
}

// symbol is a document.
type symbol struct {
	pkg, name, kind, signature, synopsis, file string
	line                                       int32
	minor                                      bool // internal or of a command
}

// span is a term's part of the postings.
type span struct{ from, to uint32 }

type posting struct {
	symbol uint32
	weight uint16 // the sum of the weights of the term's places
}

// Len is the number of symbols.
func (x *Index) Len() int { return len(x.symbols) }

// Build indexes the Go source under a root that has a src folder, without tests and testdata.
func Build(ctx context.Context, root string) (*Index, error) {
	b := &builder{postings: make(map[string][]posting), index: &Index{names: make(map[string][]uint32)}}
	source := filepath.Join(root, "src")
	err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case entry.IsDir() && (entry.Name() == "testdata" || entry.Name() == "vendor"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		relative, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		return b.file(path, relative)
	})
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", source, err)
	}
	if len(b.index.symbols) == 0 {
		return nil, fmt.Errorf("index %s: no Go source there: mount a GOROOT", source)
	}
	return b.finish(), nil
}

type builder struct {
	index    *Index
	postings map[string][]posting
	weights  map[string]uint16 // of the document being added
	length   int
}

// file adds a file's symbols. A file that cannot be parsed counts as far as it can.
func (b *builder) file(path, relative string) error {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if parsed == nil {
		return err
	}
	f := &fileBuilder{builder: b, files: files, pkg: filepath.ToSlash(filepath.Dir(relative)), name: filepath.ToSlash(relative)}
	f.minor = strings.HasPrefix(f.pkg, "cmd/") || strings.Contains("/"+f.pkg+"/", "/internal/")
	if parsed.Doc != nil {
		f.add(document{name: parsed.Name.Name, kind: "package", signature: "package " + parsed.Name.Name, doc: parsed.Doc, at: parsed.Package})
	}
	for _, declaration := range parsed.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			f.function(d)
		case *ast.GenDecl:
			f.general(d)
		}
	}
	return nil
}

// finish flattens the postings.
func (b *builder) finish() *Index {
	x := b.index
	total := 0
	for _, list := range b.postings {
		total += len(list)
	}
	x.postings = make([]posting, 0, total)
	x.terms = make(map[string]span, len(b.postings))
	terms := make([]string, 0, len(b.postings))
	for term := range b.postings {
		terms = append(terms, term)
	}
	slices.Sort(terms)
	for _, term := range terms {
		from := uint32(len(x.postings))
		x.postings = append(x.postings, b.postings[term]...)
		x.terms[term] = span{from, uint32(len(x.postings))}
	}
	sum := 0.0
	for _, length := range x.lengths {
		sum += float64(length)
	}
	x.average = sum / float64(len(x.lengths))
	for _, list := range x.names {
		slices.SortFunc(list, func(a, c uint32) int { return cmp.Compare(a, c) })
	}
	return x
}
