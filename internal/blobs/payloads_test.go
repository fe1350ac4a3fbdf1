package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/freshet-dev/freshet/internal/blobs"
)

// files are all files below a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPayloadsAreStoredWholeOrNotAtAll(t *testing.T) {
	store, dir := open(t)
	payloads := store.Payloads()
	data := bytes.Repeat([]byte("payload "), 1<<15)
	size := int64(len(data))
	broken := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := payloads.Put(t.Context(), "ns/app/f/one.in", broken, 2*size); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a reader that fails: %v", err)
	}
	if _, err := payloads.Put(t.Context(), "ns/app/f/one.in", bytes.NewReader(data), size-1); !errors.Is(err, blobs.ErrTooLong) {
		t.Errorf("too much: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := payloads.Put(over, "ns/app/f/one.in", bytes.NewReader(data), size); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended: %v", err)
	}
	if left := files(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	written, err := payloads.Put(t.Context(), "ns/app/f/one.in", bytes.NewReader(data), size)
	if err != nil || written.Size != size || written.Sum != digestOf(string(data)) {
		t.Fatalf("wrote %+v, %v", written, err)
	}
	in, err := payloads.Open(t.Context(), "ns/app/f/one.in", written)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	part, err := payloads.OpenRange(t.Context(), "ns/app/f/one.in", 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = part.Close() }()
	if got, err := io.ReadAll(part); err != nil || string(got) != "load" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestDamagedPayloadsAreNeverWhole(t *testing.T) {
	store, dir := open(t)
	payloads := store.Payloads()
	if _, err := payloads.Open(t.Context(), "missing.in", blobs.Written{}); !errors.Is(err, blobs.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	written, err := payloads.Put(t.Context(), "one.in", bytes.NewReader([]byte("hello")), 5)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "payloads", "one.in")
	for text, ends := range map[string]int{"hellO": 4, "hell": 0, "hello!": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := payloads.Open(t.Context(), "one.in", written)
		if err == nil {
			var got []byte
			got, err = io.ReadAll(in)
			if len(got) > ends {
				t.Errorf("%q: %d bytes of it were given", text, len(got))
			}
			_ = in.Close()
		}
		if !errors.Is(err, blobs.ErrDigest) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
