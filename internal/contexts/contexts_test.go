package contexts

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestWhatIsSavedIsLoaded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "contexts")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		var want File
		for range rapid.IntRange(0, 4).Draw(t, "contexts") {
			c := Context{
				Name:    rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9_.-]{0,9}`).Draw(t, "name"),
				Address: "https://" + rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "host"),
				Token:   rapid.StringMatching(`[!-~]{0,9}`).Draw(t, "token"), Namespace: rapid.StringMatching(`[a-z]{0,3}`).Draw(t, "namespace"),
			}
			if err := want.Set(c); err != nil && c.Name != Local {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, "new", "contexts.hcl")
		if err := want.Save(path); err != nil {
			t.Fatal(err)
		}
		got, err := Load(path)
		if err != nil {
			data, _ := os.ReadFile(path)
			t.Fatalf("%v in %s", err, data)
		}
		if len(want.Contexts) == 0 {
			want.Contexts = got.Contexts
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestContextsAreUsedAndForgotten(t *testing.T) {
	var f File
	var unknown *UnknownError
	if err := f.Use("prod"); !errors.As(err, &unknown) || !strings.Contains(err.Error(), "freshet context set prod") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"prod", "dev"} {
		if err := f.Set(Context{Name: name, Address: "http://" + name}); err != nil {
			t.Fatal(err)
		}
	}
	if f.Current != "prod" || f.Contexts[0].Name != "dev" {
		t.Errorf("got %+v", f)
	}
	if err := f.Use("dev"); err != nil || f.Current != "dev" {
		t.Errorf("got %+v, %v", f, err)
	}
	if err := f.Set(Context{Name: "dev", Address: "http://other"}); err != nil || f.Current != "dev" || len(f.Contexts) != 2 {
		t.Errorf("got %+v, %v", f, err)
	}
	if err := f.Remove("dev"); err != nil || f.Current != "" || len(f.Contexts) != 1 {
		t.Errorf("got %+v, %v", f, err)
	}
	if err := f.Remove("dev"); !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
	if err := f.Use("prod"); err != nil {
		t.Error(err)
	}
	if err := f.Use(Local); err != nil || f.Current != "" {
		t.Errorf("got %+v, %v", f, err)
	}
}

func TestWrongFilesAreRefused(t *testing.T) {
	for text, says := range map[string]string{
		`current = "x"`:                                                 `current: "x": name one of the contexts`,
		`context "a" {}`:                                                `"address" is required`,
		"context \"a\" {\n address = \"a:1\"\n}":                        "write the gateway's address",
		"context \"a b\" {\n address = \"a:1\"\n}":                      "name it with letters",
		"context \"local\" {\n address = \"http://a\"\n}":               "not local",
		"context \"a\" {\n address = \"http://a\"\n ca = \"ca.pem\"\n}": "the whole path",
		"context \"a\" {\n address = \"http://a\"\n}\ncontext \"a\" {\n address = \"http://b\"\n}": "name each context once",
		"contxt \"a\" {}": "contexts.hcl:1,1-7",
	} {
		path := filepath.Join(t.TempDir(), "contexts.hcl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want %s", text, err, says)
		}
	}
}

func TestFilesThatOthersMayReadAreRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it has no such bits
	}
	path := filepath.Join(t.TempDir(), "contexts.hcl")
	if err := (File{}).Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("got %v", err)
	}
	if file, err := Load(path + "x"); err != nil || len(file.Contexts) != 0 {
		t.Errorf("none there: got %+v, %v", file, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("current = \"a\"\ncontext \"a\" {\n address = \"http://a\"\n}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parse("contexts.hcl", data)
		if err != nil {
			return
		}
		again, err := parse("contexts.hcl", file.encode())
		if err != nil {
			t.Fatalf("%v in %s", err, file.encode())
		}
		if diff := cmp.Diff(file, again); diff != "" {
			t.Error(diff)
		}
	})
}
