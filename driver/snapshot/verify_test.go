package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// thaw does what a worker does with a snapshot: it finds it, and wakes nobody before the check is over.
func thaw(t *testing.T, store *Store, key string) error {
	use, err := store.Lookup(t.Context(), key)
	if err != nil {
		return err
	}
	defer use.Release()
	if err := use.Verify(t.Context()).Wait(); err != nil {
		return errors.Join(err, use.Quarantine(err.Error()))
	}
	return nil
}

// large is more than what Lookup checks, so that Verify has something to do, and not a multiple of anything.
const large = checkedFirst + 3*chunkSize + 12345

// TestDamageIsNoticed: whatever is changed in a snapshot's files, no guest wakes from it and the reason is kept.
func TestDamageIsNoticed(t *testing.T) {
	store := open(t, 0)
	key := put(t, store, "app", large)
	if err := thaw(t, store, key); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.SampledFrom([]string{"pages.img", "checkpoint.img"}).Draw(r, "file")
		path := filepath.Join(store.path(key), name)
		info, err := os.Stat(path)
		if err != nil {
			r.Fatal(err)
		}
		offset := rapid.Int64Range(0, info.Size()-1).Draw(r, "offset")
		mask := rapid.ByteRange(1, 255).Draw(r, "bits")
		flip(r, path, offset, mask)
		if err := thaw(t, store, key); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
			r.Fatalf("got %v, want damage in %s at %d", err, name, offset)
		}
		reason, err := os.ReadFile(filepath.Join(store.path(key)+badSuffix, reasonFile))
		if err != nil || !strings.Contains(string(reason), name) {
			r.Fatalf("reason %q, %v", reason, err)
		}
		// Undo it: the snapshot is good again.
		if err := errors.Join(os.Rename(store.path(key)+badSuffix, store.path(key)), os.Remove(filepath.Join(store.path(key), reasonFile))); err != nil {
			r.Fatal(err)
		}
		flip(r, path, offset, mask)
	})
}

func flip(t rapid.TB, path string, offset int64, mask byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := make([]byte, 1)
	_, err = file.ReadAt(at, offset)
	at[0] ^= mask
	if err == nil {
		_, err = file.WriteAt(at, offset)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestManifestDamageIsNoticed: any byte of the manifest changed makes it unreadable, or means the same.
func TestManifestDamageIsNoticed(t *testing.T) {
	store := open(t, 0)
	key := put(t, store, "app", 1000)
	good, err := readManifest(store.path(key))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(store.path(key), manifestFile))
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		for _, mask := range []byte{1, 0x20, 0x80} {
			data := append([]byte(nil), whole...)
			data[at] ^= mask
			m, err := parseManifest(data)
			if err == nil && m.Sum != good.Sum {
				t.Fatalf("byte %d with %#x flipped was taken for good", at, mask)
			}
		}
		if _, err := parseManifest(whole[:at]); err == nil {
			t.Fatalf("the first %d bytes were taken for all", at)
		}
	}
}

// TestManifestsLeadNowhereElse: whatever a manifest says, its files are in the snapshot. Not a fuzz target, nor are the others
// here: gVisor, which this package's tests link, does not build with the fuzzer's instrumentation.
func TestManifestsLeadNowhereElse(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"..", ".", "/", "../x", "a/b", "/etc/passwd", ""})).Draw(r, "name")
		size := rapid.Int64Range(-1, 3*chunkSize).Draw(r, "size")
		sums := rapid.SliceOfN(rapid.Uint32(), 0, 4).Draw(r, "sums")
		data, err := manifest{Format: format, Files: map[string]file{name: {Size: size, Sums: sums}}}.encode()
		if err != nil {
			r.Fatal(err)
		}
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		for name, file := range m.Files {
			if filepath.Join("/snapshot", name) != "/snapshot/"+name || strings.Contains(name, "/") || name == "" {
				r.Errorf("file %q leads out of the snapshot", name)
			}
			if file.Size < 0 || int64(len(file.Sums)) != chunks(file.Size) {
				r.Errorf("%d bytes with %d sums", file.Size, len(file.Sums))
			}
		}
	})
}

func TestWhatIsNotForThisNodeIsNotThawed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*testing.T, *Store, string) string // returns the key to ask for
		reason string
	}{
		"truncated pages": {func(t *testing.T, s *Store, key string) string {
			return edit(t, s, key, func(dir string) error { return os.Truncate(filepath.Join(dir, "pages.img"), large-1) })
		}, "its manifest says"},
		"missing pages": {func(t *testing.T, s *Store, key string) string {
			return edit(t, s, key, func(dir string) error { return os.Remove(filepath.Join(dir, "pages.img")) })
		}, "no such file"},
		"no manifest": {func(t *testing.T, s *Store, key string) string {
			return edit(t, s, key, func(dir string) error { return os.Remove(filepath.Join(dir, manifestFile)) })
		}, "read snapshot manifest"},
		"half a manifest": {func(t *testing.T, s *Store, key string) string {
			return edit(t, s, key, func(dir string) error { return os.Truncate(filepath.Join(dir, manifestFile), 100) })
		}, "read snapshot manifest"},
		"an older release's manifest": {func(t *testing.T, s *Store, key string) string {
			return edit(t, s, key, func(dir string) error {
				return os.WriteFile(filepath.Join(dir, manifestFile), []byte(`{"inputs":{"app":"app"},"files":{}}`), 0o600)
			})
		}, "it has format 0"},
		"copied under another name": {func(t *testing.T, s *Store, key string) string {
			_, other := inputsOf(t, "other")
			if err := os.Rename(s.path(key), s.path(other)); err != nil {
				t.Fatal(err)
			}
			return other
		}, "belongs to the key"},
		"another processor": {func(t *testing.T, s *Store, key string) string {
			s.cpu = "another"
			return key
		}, "other features"},
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t, 0)
			key := test.change(t, store, put(t, store, "app", large))
			if _, err := store.Lookup(t.Context(), key); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.reason) {
				t.Fatalf("got %v, want %q", err, test.reason)
			}
			reason, err := os.ReadFile(filepath.Join(store.path(key)+badSuffix, reasonFile))
			if err != nil || !strings.Contains(string(reason), test.reason) {
				t.Errorf("kept reason %q, %v", reason, err)
			}
			if _, err := store.Lookup(t.Context(), key); !errors.Is(err, ErrNotFound) {
				t.Errorf("the next one finds: %v", err)
			}
			if list, err := store.List(); err != nil || len(list) != 1 {
				t.Errorf("listed %+v, %v", list, err)
			}
		})
	}
}

func edit(t *testing.T, s *Store, key string, change func(dir string) error) string {
	t.Helper()
	if err := change(s.path(key)); err != nil {
		t.Fatal(err)
	}
	return key
}
