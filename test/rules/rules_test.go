// Package rules tests what this repository asks of itself: which way dependencies point, how large things may grow, and what
// does not belong in it.
package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/freshet-dev/freshet/"
)

// The limits of files, functions and types.
const (
	maxFile     = 600
	maxTestFile = 900
	maxFunc     = 100
	maxMethods  = 25
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath   string
	Doc          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// packages lists the packages of a module of this repository.
func packages(t *testing.T, dir string) []pkg {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-json", "./...")
	list.Dir = filepath.Join(root, dir)
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list in %s: %v", dir, err)
	}
	var all []pkg
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// layers says what the packages below a folder may import of this repository; "" stands for the folder itself.
func layers() map[string][]string {
	contracts := []string{"sdk/spec", "sdk/wire", "sdk/python"}
	below := append([]string{"internal"}, contracts...)
	all := append([]string{"driver", "gateway", "scheduler-ext", "jobspecs", "sdk"}, below...)
	return map[string][]string{
		"internal":      append([]string{"internal"}, contracts...),
		"driver":        append([]string{"driver"}, below...),
		"gateway":       append([]string{"gateway"}, below...),
		"scheduler-ext": append([]string{"scheduler-ext"}, below...),
		"jobspecs":      append([]string{"jobspecs"}, below...),
		"cmd":           all,
		"bench":         append([]string{"bench"}, all...),
		"test":          append([]string{"test"}, all...),
		"sdk":           {"sdk"},
		"examples":      {"examples", "sdk"},
	}
}

func TestDependenciesPointOneWay(t *testing.T) {
	allowed := layers()
	for _, dir := range []string{".", "sdk", "examples/gosearch"} {
		for _, p := range packages(t, dir) {
			own := strings.TrimPrefix(p.ImportPath+"/", module)
			layer, _, _ := strings.Cut(own, "/")
			may, known := allowed[layer]
			if !known {
				t.Errorf("%s: no rule says what it may import: add one", p.ImportPath)
				continue
			}
			for _, list := range [][]string{p.Imports, p.TestImports, p.XTestImports} {
				for _, path := range list {
					if target, ours := strings.CutPrefix(path+"/", module); ours && !within(target, may) {
						t.Errorf("%s imports %s, which it may not", p.ImportPath, path)
					}
				}
			}
		}
	}
}

func within(path string, folders []string) bool {
	for _, folder := range folders {
		if strings.HasPrefix(path, folder+"/") {
			return true
		}
	}
	return false
}

func TestTheSDKNeedsNothing(t *testing.T) {
	for _, p := range packages(t, "sdk") {
		for _, path := range p.Imports {
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") && !strings.HasPrefix(path, module+"sdk") {
				t.Errorf("%s imports %s: whoever imports the SDK would get it too", p.ImportPath, path)
			}
		}
	}
}

func TestPackagesSayWhatTheyAreAndAreNamedForIt(t *testing.T) {
	for _, dir := range []string{".", "sdk", "examples/gosearch"} {
		for _, p := range packages(t, dir) {
			if p.Doc == "" && len(p.GoFiles) > 0 {
				t.Errorf("%s has no package comment", p.ImportPath)
			}
			switch name := filepath.Base(p.ImportPath); name {
			case "util", "utils", "common", "helpers", "misc":
				t.Errorf("%s: %q says nothing of what is in it", p.ImportPath, name)
			}
		}
	}
}

// tracked lists the files of the repository, those not yet committed among them.
func tracked(t *testing.T, patterns ...string) []string {
	t.Helper()
	args := append([]string{"ls-files", "--cached", "--others", "--exclude-standard", "--"}, patterns...)
	list := exec.CommandContext(t.Context(), "git", args...)
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var files []string
	for _, file := range strings.Fields(string(out)) {
		if _, err := os.Stat(filepath.Join(root, file)); err == nil {
			files = append(files, file)
		}
	}
	if len(files) == 0 {
		t.Fatal("found no files")
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestNothingGrowsTooLarge(t *testing.T) {
	methods := make(map[string]int)
	for _, file := range tracked(t, "*.go") {
		limit := maxFile
		if strings.HasSuffix(file, "_test.go") {
			limit = maxTestFile
		}
		data := read(t, file)
		if lines := bytes.Count(data, []byte("\n")); lines > limit {
			t.Errorf("%s has %d lines, more than %d: it holds more than one idea", file, lines, limit)
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, data, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			fn, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if lines := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line; lines > maxFunc && limit == maxFile {
				t.Errorf("%s: function %s has %d lines, more than %d", file, fn.Name.Name, lines, maxFunc)
			}
			if fn.Recv != nil && len(fn.Recv.List) == 1 {
				methods[filepath.Dir(file)+" "+receiver(fn.Recv.List[0].Type)]++
			}
		}
	}
	for name, count := range methods {
		if count > maxMethods {
			t.Errorf("type %s has %d methods, more than %d", name, count, maxMethods)
		}
	}
}

func receiver(expression ast.Expr) string {
	switch typ := expression.(type) {
	case *ast.StarExpr:
		return receiver(typ.X)
	case *ast.IndexExpr:
		return receiver(typ.X)
	case *ast.Ident:
		return typ.Name
	}
	return ""
}

// TestNothingOfOneMachineIsHere: no path of somebody's machine, no address of a package registry.
func TestNothingOfOneMachineIsHere(t *testing.T) {
	foreign := regexp.MustCompile(`/(?:home|Users)/[a-z]\w*/|/root/|/work/(?:main|shared)|(?:proxy\.golang|sum\.golang|pypi|npmjs|registry-1\.docker)\.(?:org|com|io)`)
	for _, file := range tracked(t) {
		if strings.HasPrefix(file, "test/rules/") || strings.HasSuffix(file, ".sum") || strings.HasSuffix(file, ".ndjson") {
			continue
		}
		for number, line := range bytes.Split(read(t, file), []byte("\n")) {
			if found := foreign.Find(line); found != nil {
				t.Errorf("%s:%d: %q belongs to one machine", file, number+1, found)
			}
		}
	}
}

func TestEveryDependencySaysWhyItIsThere(t *testing.T) {
	reasons := string(read(t, "docs/dependencies.md"))
	list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all")
	list.Dir = root
	list.Env = append(os.Environ(), "GOWORK=off")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	required := strings.Fields(string(out))
	if len(required) < 10 {
		t.Fatalf("found only %d requirements", len(required))
	}
	for _, path := range required {
		if !strings.Contains(reasons, "| "+path+" |") {
			t.Errorf("docs/dependencies.md does not say why %s is there", path)
		}
	}
	for _, line := range strings.Split(reasons, "\n") {
		path, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		if first, _, _ := strings.Cut(path, "/"); strings.HasPrefix(line, "| ") && strings.Contains(first, ".") &&
			!strings.Contains(string(read(t, "go.mod")), path) && !strings.Contains(path, "golangci") {
			t.Errorf("docs/dependencies.md names %s, which is not required", path)
		}
	}
}

// TestLinksOfTheDocumentsLeadSomewhere also checks the files that comments in the source refer to.
func TestLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	link, program := regexp.MustCompile(`\]\(([^)#:]+)\)`), regexp.MustCompile("(?s)```go\n.*?```") // in which m[string](c) is no link
	record := regexp.MustCompile(`docs/decisions/(\d{4})`)
	for _, file := range tracked(t, "*.md", "*.go") {
		data := read(t, file)
		if strings.HasSuffix(file, ".md") {
			for _, match := range link.FindAllSubmatch(program.ReplaceAll(data, nil), -1) {
				if _, err := os.Stat(filepath.Join(root, filepath.Dir(file), string(match[1]))); err != nil {
					t.Errorf("%s: link to %s leads nowhere", file, match[1])
				}
			}
		}
		for _, match := range record.FindAllSubmatch(data, -1) {
			if found, err := filepath.Glob(filepath.Join(root, "docs/decisions", string(match[1])+"-*.md")); err != nil || len(found) != 1 {
				t.Errorf("%s: there is no decision %s", file, match[1])
			}
		}
	}
}
