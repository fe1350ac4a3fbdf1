package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/internal/blobs"
)

// bundleOf is a tar of entries.
func bundleOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var data bytes.Buffer
	out := tar.NewWriter(&data)
	for _, header := range entries {
		text := "text of " + header.Name
		if header.Typeflag == tar.TypeReg {
			header.Size = int64(len(text))
		}
		if err := out.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if _, err := out.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// bundles is a cache whose blob store holds the data, with the code that names it.
func bundles(t testing.TB, data []byte) (*image.Cache, string) {
	t.Helper()
	store, err := blobs.Open(t.Context(), (&url.URL{Scheme: "file", Path: t.TempDir()}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	if err := store.Put(t.Context(), digest, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	cache, err := image.Open(filepath.Join(t.TempDir(), "rootfs"), store)
	if err != nil {
		t.Fatal(err)
	}
	return cache, "sha256:" + digest
}

func TestBundlesAreUnpackedOnce(t *testing.T) {
	data := bundleOf(t, tar.Header{Name: "pkg", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "pkg/a.py", Typeflag: tar.TypeReg, Mode: 0o600}, tar.Header{Name: "./app.py", Typeflag: tar.TypeReg, Mode: 0o600})
	for name, archive := range map[string][]byte{"tar": data, "gzip": zipped(t, data)} {
		cache, code := bundles(t, archive)
		first, err := cache.ForBundle(t.Context(), code)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, file := range []string{"app.py", "pkg/a.py"} {
			path := filepath.Join(first.Dir, file)
			text, err := os.ReadFile(path)
			if err != nil || !strings.HasSuffix(string(text), file) {
				t.Errorf("%s: %q, %v", name, text, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 || info.ModTime().Unix() != 0 {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
		if again, err := cache.ForBundle(t.Context(), code); err != nil || again != first {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
	}
}

func TestBundlesThatMeanHarmAreRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"leads out":   bundleOf(t, tar.Header{Name: "../x.py", Typeflag: tar.TypeReg}),
		"absolute":    bundleOf(t, tar.Header{Name: "/etc/x.py", Typeflag: tar.TypeReg}),
		"link":        bundleOf(t, tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc"}),
		"hard link":   bundleOf(t, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}),
		"device":      bundleOf(t, tar.Header{Name: "x", Typeflag: tar.TypeChar}),
		"cut short":   bundleOf(t, tar.Header{Name: "x.py", Typeflag: tar.TypeReg})[:515],
		"no archive":  []byte(strings.Repeat("import this\n", 100)),
		"broken gzip": zipped(t, bundleOf(t, tar.Header{Name: "x.py", Typeflag: tar.TypeReg}))[:40],
	} {
		cache, code := bundles(t, data)
		if root, err := cache.ForBundle(t.Context(), code); err == nil {
			t.Errorf("%s: got %+v", name, root)
		} else if entries, _ := filepath.Glob(filepath.Join(filepath.Dir(root.Dir), "*")); len(entries) > 0 {
			t.Errorf("%s: left %q", name, entries)
		}
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(bundleOf(f, tar.Header{Name: "a/b.py", Typeflag: tar.TypeReg}))
	f.Add(zipped(f, bundleOf(f, tar.Header{Name: "../b.py", Typeflag: tar.TypeReg})))
	f.Fuzz(func(t *testing.T, data []byte) {
		cache, code := bundles(t, data)
		root, err := cache.ForBundle(t.Context(), code)
		if err != nil {
			return
		}
		above, err := os.ReadDir(filepath.Dir(root.Dir))
		if err != nil || len(above) != 1 {
			t.Errorf("%d entries beside the bundle, %v", len(above), err)
		}
	})
}
