package blobs_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/blobs"
)

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func open(t *testing.T) (*blobs.Store, string) {
	t.Helper()
	dir := t.TempDir()
	store, err := blobs.Open(t.Context(), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store, dir
}

func TestPutAndOpen(t *testing.T) {
	store, _ := open(t)
	digest := digestOf("hello")
	if err := store.Put(t.Context(), digest, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	there, err := store.Has(t.Context(), digest)
	if err != nil || !there {
		t.Fatalf("there %v, %v", there, err)
	}
	in, err := store.Open(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if data, err := io.ReadAll(in); err != nil || string(data) != "hello" {
		t.Fatalf("read %q, %v", data, err)
	}
}

func TestWrongBytesAreNotStored(t *testing.T) {
	store, _ := open(t)
	digest := digestOf("hello")
	if err := store.Put(t.Context(), digest, strings.NewReader("other")); !errors.Is(err, blobs.ErrDigest) {
		t.Fatalf("got %v", err)
	}
	if there, err := store.Has(t.Context(), digest); there || err != nil {
		t.Fatalf("wrong bytes are there: %v, %v", there, err)
	}
	if _, err := store.Open(t.Context(), digest); !errors.Is(err, blobs.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestDamagedBlobIsNoticed(t *testing.T) {
	store, dir := open(t)
	digest := digestOf("hello")
	if err := store.Put(t.Context(), digest, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "sha256", digest))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte("hellO"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := store.Open(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if _, err := io.ReadAll(in); !errors.Is(err, blobs.ErrDigest) {
		t.Fatalf("got %v", err)
	}
}

func TestDigestsAreChecked(t *testing.T) {
	store, _ := open(t)
	for _, digest := range []string{"", "..", strings.Repeat("A", 64), strings.Repeat("a", 63)} {
		if _, err := store.Has(t.Context(), digest); !errors.Is(err, blobs.ErrDigest) {
			t.Errorf("%q: got %v", digest, err)
		}
	}
}

func TestObjects(t *testing.T) {
	store, _ := open(t)
	objects := store.Objects("things")
	const limit = 100
	for name, text := range map[string]string{"a/one": "1", "a/two.0": "2", "b": "3"} {
		if err := objects.Put(t.Context(), name, []byte("old")); err != nil {
			t.Fatal(err)
		}
		if err := objects.Put(t.Context(), name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := objects.Get(t.Context(), "a/two.0", limit); err != nil || string(data) != "2" {
		t.Errorf("read %q, %v", data, err)
	}
	if err := objects.Put(t.Context(), "large", make([]byte, limit+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Get(t.Context(), "large", limit); err == nil {
		t.Error("more than the limit was read")
	}
	for range 2 { // the second time nothing is there, which is as good
		if err := objects.Delete(t.Context(), "large"); err != nil {
			t.Error(err)
		}
	}
	if _, err := objects.Get(t.Context(), "large", limit); !errors.Is(err, blobs.ErrNotFound) {
		t.Errorf("after its removal: %v", err)
	}
	if there, err := objects.Has(t.Context(), "b"); err != nil || !there {
		t.Errorf("b: there %v, %v", there, err)
	}
	if there, err := store.Objects("other").Has(t.Context(), "b"); err != nil || there {
		t.Errorf("b in another folder: there %v, %v", there, err)
	}
	var names []string
	err := objects.List(t.Context(), func(object blobs.Object) error {
		names = append(names, object.Name)
		if object.Bytes != 1 || object.Modified.IsZero() {
			t.Errorf("listed %+v", object)
		}
		return nil
	})
	if err != nil || strings.Join(names, " ") != "a/one a/two.0 b" {
		t.Errorf("listed %q, %v", names, err)
	}
	for _, name := range []string{"", "/", "a/", "/a", "..", "a/../b", "a..b", "a\x00", "ä"} {
		if err := objects.Put(t.Context(), name, nil); !errors.Is(err, blobs.ErrName) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}
