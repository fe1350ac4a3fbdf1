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
