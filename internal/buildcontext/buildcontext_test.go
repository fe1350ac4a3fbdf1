package buildcontext_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/buildcontext"
)

// folder makes a folder with files, each of which holds its own name.
func folder(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pack(t *testing.T, dir string, only ...string) (names, content string) {
	t.Helper()
	var out bytes.Buffer
	if err := buildcontext.Pack(t.Context(), dir, only, &out); err != nil {
		t.Fatal(err)
	}
	content = out.String()
	plain, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for archive := tar.NewReader(plain); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(list, " "), content
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeDir {
			list = append(list, header.Name)
		}
	}
}

func TestPack(t *testing.T) {
	dir := folder(t, "Dockerfile", "app.py", "src/a.go", "src/b.txt", "src/deep/c.go", "node_modules/x/y", "keep/this", "keep/not")
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("node_modules\nkeep/*\n!keep/this\n**/*.txt\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("src", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	all, first := pack(t, dir)
	if want := ".dockerignore Dockerfile app.py keep/this link src/a.go src/deep/c.go"; all != want {
		t.Errorf("packed %s, want %s", all, want)
	}
	if _, again := pack(t, dir); again != first {
		t.Error("the same files make other bytes")
	}
	for only, want := range map[string]string{
		"app.py":       ".dockerignore app.py",
		"src":          ".dockerignore src/a.go src/deep/c.go",
		"src/*.go":     ".dockerignore src/a.go",
		"src/d*/c.go":  ".dockerignore src/deep/c.go",
		"*.py keep":    ".dockerignore app.py keep/this",
		".":            all,
		"link":         all,
		"node_modules": ".dockerignore",
		"missing":      ".dockerignore",
	} {
		if got, _ := pack(t, dir, strings.Fields(only)...); got != want {
			t.Errorf("of %s: packed %s, want %s", only, got, want)
		}
	}
	if got, _ := pack(t, dir, []string{}...); got != ".dockerignore" {
		t.Errorf("of nothing: packed %s", got)
	}
	_, before := pack(t, dir, "src")
	now := time.Now().Add(time.Hour)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "app.py"), []byte("changed"), 0o644), os.Chtimes(dir, now, now)); err != nil {
		t.Fatal(err)
	}
	if _, after := pack(t, dir, "src"); after != before {
		t.Error("a file that is not asked for changes the bytes")
	}
}

func TestSources(t *testing.T) {
	for text, want := range map[string]string{
		"COPY a b/ /dst":                              "a b",
		"COPY /abs ./rel ../up /dst/":                 "abs rel up",
		"COPY --chown=1 *.py src/ /dst/":              "*.py src",
		"COPY --from=x a /\nADD https://e.test/f g /": "g",
		"COPY . /":                  ".",
		"ARG D\nCOPY $D /":          ".",
		"COPY <<EOF /f\nhello\nEOF": "",
		"RUN --mount=type=cache,target=/c --mount=type=secret,id=s true": "",
		"RUN --mount=target=/src true":                                   ".",
		"RUN --mount=type=bind,source=a,target=/a true":                  ".",
	} {
		got, err := buildcontext.Sources("Dockerfile", []byte("FROM scratch\n"+text+"\n"))
		if err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q, %v, want %s", text, got, err, want)
		}
	}
	if _, err := buildcontext.Sources("my.Dockerfile", []byte("FROM scratch\nFLY\n")); err == nil || !strings.Contains(err.Error(), "my.Dockerfile: ") {
		t.Errorf("a wrong one: %v", err)
	}
}
