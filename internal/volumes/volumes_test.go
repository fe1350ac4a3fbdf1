package volumes_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/volumes"
)

// place is a volume beside what no path in it may reach.
func place(tb testing.TB) (tree *volumes.Tree, dir, outside string) {
	tb.Helper()
	top := tb.TempDir()
	store, err := volumes.Open(filepath.Join(top, "volumes"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"mine", "theirs"} {
		if err := store.Create("default", name); err != nil {
			tb.Fatal(err)
		}
	}
	outside = filepath.Join(top, "volumes", "default", "theirs", "secret")
	if err := os.WriteFile(outside, []byte("theirs"), 0o600); err != nil {
		tb.Fatal(err)
	}
	if tree, err = store.Volume("default", "mine"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(tree.Close)
	return tree, filepath.Join(top, "volumes", "default", "mine"), outside
}

// untouched checks what is outside.
func untouched(tb testing.TB, outside string) {
	tb.Helper()
	data, err := os.ReadFile(outside)
	if err != nil || string(data) != "theirs" {
		tb.Fatalf("what is outside of the volume is %q, %v", data, err)
	}
	entries, err := os.ReadDir(filepath.Dir(outside))
	if err != nil || len(entries) != 1 {
		tb.Fatalf("beside it there are %v, %v", entries, err)
	}
}

func paths(tb testing.TB, tree *volumes.Tree, at string, recursive bool) []string {
	tb.Helper()
	var list []string
	if err := tree.Walk(at, recursive, func(e volumes.Entry) error {
		list = append(list, e.Kind+" "+e.Path)
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	return list
}

func TestFilesOfAVolume(t *testing.T) {
	tree, dir, _ := place(t)
	for path, content := range map[string]string{"a/b/c": "one", "/a/d": "two", "top": "three"} {
		if n, err := tree.Put(path, 0o640, strings.NewReader(content)); err != nil || n != int64(len(content)) {
			t.Fatalf("put %s: %d, %v", path, n, err)
		}
	}
	if _, err := tree.Put("top", 0o755, strings.NewReader("four")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"dir a", "file top"}, paths(t, tree, "", false)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"dir a/b", "file a/b/c", "file a/d"}, paths(t, tree, "a/", true)); d != "" {
		t.Error(d)
	}
	file, info, err := tree.File("top")
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Fatalf("%v, %v", info, err)
	}
	defer file.Close() //nolint:errcheck // read only
	if data, err := io.ReadAll(file); err != nil || string(data) != "four" {
		t.Errorf("read %q, %v", data, err)
	}

	// A body that breaks off leaves what was there, and nothing else.
	broken := io.MultiReader(strings.NewReader("half"), failing{})
	if _, err := tree.Put("top", 0o644, broken); err == nil {
		t.Error("half a file is taken")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "top")); err != nil || string(data) != "four" {
		t.Errorf("after half a file there is %q, %v", data, err)
	}
	if d := cmp.Diff([]string{"dir a", "file top"}, paths(t, tree, "", false)); d != "" {
		t.Error(d)
	}

	// Archives go both ways.
	var packed bytes.Buffer
	if err := os.Symlink("d", filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	if err := tree.Pack("a", &packed); err != nil {
		t.Fatal(err)
	}
	if n, err := tree.Unpack("copy/of", &packed); err != nil || n != 2 {
		t.Fatalf("unpacked %d, %v", n, err)
	}
	if d := cmp.Diff([]string{"dir copy/of/b", "file copy/of/b/c", "file copy/of/d", "link copy/of/link"}, paths(t, tree, "copy/of", true)); d != "" {
		t.Error(d)
	}

	var wrong *volumes.PathError
	if err := tree.Remove("copy", false); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "by -r") {
		t.Errorf("removed a folder with files: %v", err)
	}
	if err := tree.Remove("copy", true); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"", "/", "none"} {
		if err := tree.Remove(path, true); !errors.As(err, &wrong) {
			t.Errorf("removed %q: %v", path, err)
		}
	}
	for _, path := range []string{"", "a", "top/x"} {
		if _, err := tree.Put(path, 0o644, strings.NewReader("x")); !errors.As(err, &wrong) {
			t.Errorf("put %q: %v", path, err)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestNothingLeadsOut: links and special files that user code left in a volume lead whoever reads it nowhere.
func TestNothingLeadsOut(t *testing.T) {
	tree, dir, outside := place(t)
	for name, target := range map[string]string{"up": "../theirs", "abs": filepath.Dir(outside), "file": outside, "loop": "loop", "root": "/"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	var wrong *volumes.PathError
	for _, path := range []string{"up/secret", "abs/secret", "file", "loop", "root" + outside, "pipe", "../theirs/secret", "folder/../../theirs/secret", "folder", "a\x00b"} {
		if file, _, err := tree.File(path); !errors.As(err, &wrong) {
			t.Errorf("opened %q: %v, %v", path, file, err)
		}
		if path == "pipe" || path == "file" || path == "loop" || path == "folder" {
			continue
		}
		if _, err := tree.Put(path, 0o644, strings.NewReader("mine")); !errors.As(err, &wrong) {
			t.Errorf("put %q: %v", path, err)
		}
		if err := tree.Remove(path, true); !errors.As(err, &wrong) {
			t.Errorf("removed %q: %v", path, err)
		}
	}
	untouched(t, outside)

	// A link is replaced or removed itself.
	if _, err := tree.Put("file", 0o644, strings.NewReader("mine")); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"up", "abs", "root", "pipe"} {
		if err := tree.Remove(path, true); err != nil {
			t.Error(err)
		}
	}
	untouched(t, outside)
}

// archive makes a tar of entries.
func archive(tb testing.TB, headers ...*tar.Header) *bytes.Buffer {
	tb.Helper()
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len("mine"))
		}
		h.Mode = 0o777
		if err := writer.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := writer.Write([]byte("mine")); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := writer.Close(); err != nil {
		tb.Fatal(err)
	}
	return &out
}

func TestHostileArchives(t *testing.T) {
	for name, entries := range map[string][]*tar.Header{
		"a path that leads up":   {{Typeflag: tar.TypeReg, Name: "../theirs/secret"}},
		"an absolute path":       {{Typeflag: tar.TypeReg, Name: "/x"}},
		"through a link":         {{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "../../theirs"}, {Typeflag: tar.TypeReg, Name: "out/secret"}},
		"through its own link":   {{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/"}, {Typeflag: tar.TypeDir, Name: "a/b"}},
		"a hard link":            {{Typeflag: tar.TypeLink, Name: "hard", Linkname: "../theirs/secret"}},
		"a device":               {{Typeflag: tar.TypeBlock, Name: "disk"}},
		"a pipe":                 {{Typeflag: tar.TypeFifo, Name: "pipe"}},
		"a folder over a link":   {{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "../../theirs"}, {Typeflag: tar.TypeDir, Name: "out"}},
		"a dot in the middle":    {{Typeflag: tar.TypeReg, Name: "a/./b"}},
		"dots that lead nowhere": {{Typeflag: tar.TypeReg, Name: "a/../b"}},
	} {
		t.Run(name, func(t *testing.T) {
			tree, _, outside := place(t)
			var wrong *volumes.PathError
			if _, err := tree.Unpack("into", archive(t, entries...)); !errors.As(err, &wrong) {
				t.Errorf("it is unpacked: %v", err)
			}
			untouched(t, outside)
		})
	}
}

func FuzzPaths(f *testing.F) {
	for _, path := range []string{"", "/", "a", "a/b", "../x", "a/../..", "up/secret", "abs", "a//b", ".", "./a", "a\x00", strings.Repeat("x", 300)} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		tree, dir, outside := place(t)
		for name, target := range map[string]string{"up": "../theirs", "abs": outside} {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if file, _, err := tree.File(path); err == nil {
			data, _ := io.ReadAll(file)
			_ = file.Close()
			t.Fatalf("%q is read as %q", path, data)
		}
		_, _ = tree.Put(path, 0o644, strings.NewReader("mine"))
		_ = tree.Mkdir(path)
		_ = tree.Walk(path, true, func(e volumes.Entry) error {
			if strings.Contains(e.Path, "secret") && !strings.Contains(path, "secret") {
				t.Fatalf("%q lists %q", path, e.Path)
			}
			return nil
		})
		_ = tree.Remove(path, true)
		untouched(t, outside)
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, &tar.Header{Typeflag: tar.TypeReg, Name: "a/b"}, &tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../theirs"}).Bytes())
	f.Add(archive(f, &tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../theirs"}, &tar.Header{Typeflag: tar.TypeReg, Name: "l/secret"}).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, _, outside := place(t)
		_, _ = tree.Unpack("", bytes.NewReader(data))
		untouched(t, outside)
	})
}

func TestVolumesByTheirNames(t *testing.T) {
	store, err := volumes.Open(filepath.Join(t.TempDir(), "v"))
	if err != nil {
		t.Fatal(err)
	}
	var none *volumes.NotFoundError
	for _, name := range []string{"../default", "", "a/b", ".", "-"} {
		if err := store.Create("default", name); err == nil {
			t.Errorf("made %q", name)
		}
		if _, err := store.Volume("default", name); !errors.As(err, &none) {
			t.Errorf("opened %q: %v", name, err)
		}
		if err := store.Remove("default", name); !errors.As(err, &none) {
			t.Errorf("removed %q: %v", name, err)
		}
	}
	for _, name := range []string{"b", "a"} {
		if err := store.Create("prod", name); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Create("prod", "a"); !errors.Is(err, volumes.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	list, err := store.List("prod")
	if err != nil || len(list) != 2 || list[0].Name != "a" {
		t.Errorf("%v, %v", list, err)
	}
	if other, err := store.List("default"); err != nil || len(other) != 0 {
		t.Errorf("of another namespace: %v, %v", other, err)
	}
	if err := store.Remove("prod", "a"); err != nil || store.Has("prod", "a") || !store.Has("prod", "b") {
		t.Errorf("remove: %v", err)
	}
}
