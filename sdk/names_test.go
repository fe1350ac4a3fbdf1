package freshet_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEveryExportedNameIsInAnExample fails for a name that no example uses: `go doc` reads as a manual, and its examples run.
func TestEveryExportedNameIsInAnExample(t *testing.T) {
	for _, dir := range []string{".", "client", "freshettest"} {
		used := usedInExamples(t, dir)
		for _, name := range exported(t, dir) {
			if _, last, ok := strings.Cut(name, "."); !used[name] && (!ok || !used[last]) {
				t.Errorf("%s: no example uses %s: add one, or use it in one", dir, name)
			}
		}
	}
}

func parse(t *testing.T, pattern string, keep func(name string) bool) (*token.FileSet, []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		if !keep(filepath.Base(path)) {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return set, files
}

// exported are the names of a package that `go doc` shows, methods as Type.Method.
func exported(t *testing.T, dir string) []string {
	t.Helper()
	set, files := parse(t, filepath.Join(dir, "*.go"), func(name string) bool {
		return !strings.HasSuffix(name, "_test.go") && name != "stdout_other.go"
	})
	p, err := doc.NewFromFiles(set, files, dir)
	if err != nil {
		t.Fatal(err)
	}
	// These are for interfaces of the standard library.
	standard := []string{"Error.Error", "Error.Unwrap", "Error.As", "ItemErrors.Error"}
	var names []string
	add := func(prefix string, functions []*doc.Func) {
		for _, f := range functions {
			if name := prefix + f.Name; !slices.Contains(standard, name) {
				names = append(names, name)
			}
		}
	}
	values := func(all []*doc.Value) {
		for _, value := range all {
			names = append(names, slices.DeleteFunc(slices.Clone(value.Names), func(name string) bool { return !ast.IsExported(name) })...)
		}
	}
	add("", p.Funcs)
	values(append(p.Consts, p.Vars...))
	for _, typ := range p.Types {
		if !ast.IsExported(typ.Name) {
			continue
		}
		names = append(names, typ.Name)
		add("", typ.Funcs)
		add(typ.Name+".", typ.Methods)
		values(append(typ.Consts, typ.Vars...))
	}
	return names
}

// usedInExamples are the names that the example files of a package use.
func usedInExamples(t *testing.T, dir string) map[string]bool {
	t.Helper()
	_, files := parse(t, filepath.Join(dir, "*_test.go"), func(name string) bool { return strings.HasPrefix(name, "example") })
	used := make(map[string]bool)
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok {
				used[selector.Sel.Name] = true
			}
			if field, ok := n.(*ast.KeyValueExpr); ok {
				if key, ok := field.Key.(*ast.Ident); ok {
					used[key.Name] = true
				}
			}
			return true
		})
	}
	return used
}
