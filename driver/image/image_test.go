package image_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/internal/blobs"
)

func TestProgramsGetARootOnce(t *testing.T) {
	dir := t.TempDir()
	store, err := blobs.Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	cache, err := image.Open(filepath.Join(dir, "rootfs"), store)
	if err != nil {
		t.Fatal(err)
	}
	const text = "#!/bin/sh\n"
	sum := sha256.Sum256([]byte(text))
	digest := hex.EncodeToString(sum[:])
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), digest, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	var starts sync.WaitGroup
	for _, code := range []string{program, "sha256:" + digest, program, "sha256:" + digest} {
		starts.Go(func() {
			root, err := cache.ForProgram(t.Context(), code)
			if err != nil || root.Digest != digest {
				t.Errorf("%s: %+v, %v", code, root, err)
				return
			}
			path := filepath.Join(root.Dir, image.Program)
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm()&0o111 == 0 {
				t.Errorf("%s: %v, %v", path, info, err)
			}
		})
	}
	starts.Wait()
	roots, err := os.ReadDir(filepath.Join(dir, "rootfs"))
	if err != nil || len(roots) != 1 {
		t.Errorf("%d roots for one program, %v", len(roots), err)
	}
	if err := os.WriteFile(program, []byte("another"), 0o700); err != nil {
		t.Fatal(err)
	}
	if root, err := cache.ForProgram(t.Context(), program); err != nil || root.Digest == digest {
		t.Errorf("the changed program has the old root: %+v, %v", root, err)
	}
}

func TestWrongProgramsSayWhatIsWrong(t *testing.T) {
	cache, err := image.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for code, says := range map[string]string{
		"/no/such/program":                   "no such file",
		plain:                                "no executable file",
		"sha256:" + strings.Repeat("00", 32): "blob",
	} {
		if _, err := cache.ForProgram(t.Context(), code); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want something about %q", code, err, says)
		}
	}
}
