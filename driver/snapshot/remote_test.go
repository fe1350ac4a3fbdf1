package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	keyOne = "one MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	keyTwo = "two YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI="
)

// bucket is a blob store, and the directory that it is in.
type bucket struct {
	*blobs.Store
	dir string
}

func newBucket(t *testing.T) bucket {
	t.Helper()
	dir := t.TempDir()
	store, err := blobs.Open(t.Context(), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return bucket{store, dir}
}

func (b bucket) remote(t *testing.T, keys ...string) *Remote {
	t.Helper()
	parsed, err := ParseKeys([]byte(strings.Join(keys, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return NewRemote(b.Store, parsed)
}

// files are the paths of all objects whose names end so.
func (b bucket) files(t *testing.T, ending string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(filepath.Join(b.dir, folder), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ending) {
			list = append(list, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return list
}

func TestAnotherNodeFetchesWhatOnePushed(t *testing.T) {
	b, here, there := newBucket(t), open(t, 0), open(t, 0)
	key := put(t, here, "app", large)
	remote := b.remote(t, keyOne)
	if _, err := remote.Fetch(t.Context(), there, key, time.Minute); !errors.Is(err, ErrNotFound) {
		t.Fatalf("nothing is pushed, and yet: %v", err)
	}
	for range 2 { // the second does nothing
		if _, err := remote.Push(t.Context(), here, key); err != nil {
			t.Fatal(err)
		}
	}
	if heads := b.files(t, "head"); len(heads) != 1 {
		t.Fatalf("heads: %v", heads)
	}
	use, err := remote.Fetch(t.Context(), there, key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer use.Release()
	if err := use.Verify(t.Context()).Wait(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pages.img", "checkpoint.img", manifestFile} {
		want, err := os.ReadFile(filepath.Join(here.path(key), name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(use.Dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from the original, %v", name, err)
		}
	}
}

// TestBucketTellsNothing: neither names nor contents of objects show what is in a snapshot.
func TestBucketTellsNothing(t *testing.T) {
	b, here := newBucket(t), open(t, 0)
	key := put(t, here, "app-in-secret", 4000)
	if _, err := b.remote(t, keyOne).Push(t.Context(), here, key); err != nil {
		t.Fatal(err)
	}
	pages, err := os.ReadFile(filepath.Join(here.path(key), "pages.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range b.files(t, "") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("app-in-secret")) || bytes.Contains(data, pages[100:140]) || strings.Contains(path, key) {
			t.Errorf("%s shows what is sealed", path)
		}
	}
}

func TestChangedObjectsAreNotFetched(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, b bucket){
		"a bit of a chunk":  func(t *testing.T, b bucket) { flip(t, b.files(t, "pages.img.1")[0], 99, 4) },
		"a bit of the head": func(t *testing.T, b bucket) { flip(t, b.files(t, "head")[0], 200, 4) },
		"the head's header": func(t *testing.T, b bucket) { flip(t, b.files(t, "head")[0], 40, 4) },
		"two chunks swapped": func(t *testing.T, b bucket) {
			a, c := b.files(t, "pages.img.1")[0], b.files(t, "pages.img.2")[0]
			if err := errors.Join(os.Rename(a, a+"x"), os.Rename(c, a), os.Rename(a+"x", c)); err != nil {
				t.Fatal(err)
			}
		},
		"a chunk for another": func(t *testing.T, b bucket) { copyFile(t, b.files(t, "pages.img.1")[0], b.files(t, "pages.img.2")[0]) },
		"a chunk cut short": func(t *testing.T, b bucket) {
			if err := os.Truncate(b.files(t, "pages.img.1")[0], 1000); err != nil {
				t.Fatal(err)
			}
		},
		"a chunk gone": func(t *testing.T, b bucket) {
			if err := os.Remove(b.files(t, "pages.img.3")[0]); err != nil {
				t.Fatal(err)
			}
		},
		"an empty head": func(t *testing.T, b bucket) {
			if err := os.Truncate(b.files(t, "head")[0], 0); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, here, there := newBucket(t), open(t, 0), open(t, 0)
			key, remote := put(t, here, "app", large), b.remote(t, keyOne)
			if _, err := remote.Push(t.Context(), here, key); err != nil {
				t.Fatal(err)
			}
			change(t, b)
			if _, err := remote.Fetch(t.Context(), there, key, time.Minute); !errors.Is(err, ErrDamaged) {
				t.Fatalf("got %v", err)
			}
			entries, err := filepath.Glob(filepath.Join(there.dir, "*"+key))
			if err != nil || len(entries) > 0 {
				t.Errorf("left in the store: %v, %v", entries, err)
			}
			// What cannot be used gives way to what can.
			if _, err := remote.Push(t.Context(), here, key); err != nil {
				t.Fatal(err)
			}
			use, err := remote.Fetch(t.Context(), there, key, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			use.Release()
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestChunksOfTwoPushesDoNotMix: each push has a key of its own.
func TestChunksOfTwoPushesDoNotMix(t *testing.T) {
	first, second, here, there := newBucket(t), newBucket(t), open(t, 0), open(t, 0)
	key := put(t, here, "app", large)
	for _, b := range []bucket{first, second} {
		if _, err := b.remote(t, keyOne).Push(t.Context(), here, key); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, first.files(t, "pages.img.1")[0], second.files(t, "pages.img.1")[0])
	if _, err := second.remote(t, keyOne).Fetch(t.Context(), there, key, time.Minute); !errors.Is(err, ErrDamaged) {
		t.Fatalf("got %v", err)
	}
}

func TestForeignProcessorsSnapshotIsNotFetched(t *testing.T) {
	b, here, there := newBucket(t), open(t, 0), open(t, 0)
	key, remote := put(t, here, "app", 1000), b.remote(t, keyOne)
	if _, err := remote.Push(t.Context(), here, key); err != nil {
		t.Fatal(err)
	}
	there.cpu = "another"
	if _, err := remote.Fetch(t.Context(), there, key, time.Minute); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "other features") {
		t.Fatalf("got %v", err)
	}
}

func TestKeysAreRotated(t *testing.T) {
	b, here, there := newBucket(t), open(t, 0), open(t, 0)
	key := put(t, here, "app", 1000)
	if _, err := b.remote(t, keyOne).Push(t.Context(), here, key); err != nil {
		t.Fatal(err)
	}
	if _, err := b.remote(t, keyTwo).Fetch(t.Context(), there, key, time.Minute); !errors.Is(err, ErrNotFound) {
		t.Fatalf("with another key: %v", err)
	}
	use, err := b.remote(t, keyTwo, keyOne).Fetch(t.Context(), there, key, time.Minute)
	if err != nil {
		t.Fatalf("with the new key and the old one: %v", err)
	}
	use.Release()
}

func TestKeyFilesAreChecked(t *testing.T) {
	for text, mend := range map[string]string{
		"":                        "write a line",
		"# only words":            "write a line",
		"one":                     "a space",
		"one two three":           "a space",
		"o/ne " + keyOne[4:]:      "name the key",
		"one !!":                  "exactly 32 bytes",
		"one c2hvcnQ=":            "exactly 32 bytes",
		keyOne + "\n" + keyOne:    "once",
		keyOne + "\n\ntwo c2hvcg": "line 3",
	} {
		_, err := ParseKeys([]byte(text))
		var field spec.FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), mend) {
			t.Errorf("%q: got %v, want %q", text, err, mend)
		}
		if err != nil && strings.Contains(err.Error(), keyOne[4:]) {
			t.Errorf("%q: the error shows the key: %v", text, err)
		}
	}
}

func TestAnyKeyFileIsReadOrRefused(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		lines := rapid.SliceOf(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{keyOne, keyTwo, "", "# x"}))).Draw(r, "lines")
		keys, err := ParseKeys([]byte(strings.Join(lines, "\n")))
		if err == nil && len(keys.list) == 0 {
			r.Error("a file without keys was taken")
		}
	})
}

// TestOnlySealedHeadsOpen: whoever writes to the bucket cannot make a node crash or take anything.
func TestOnlySealedHeadsOpen(t *testing.T) {
	key := clusterKey{id: "one", secret: make([]byte, keyBytes)}
	s, err := newSealer(key, "snapshot")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	data, err := s.sealHead(manifest{Format: format})
	if err != nil {
		t.Fatal(err)
	}
	found, err := openHead(key, "snapshot", data)
	if err != nil {
		t.Fatal(err)
	}
	found.sealer.close()
	rapid.Check(t, func(r *rapid.T) {
		changed := rapid.OneOf(
			rapid.SliceOf(rapid.Byte()),
			rapid.Custom(func(r *rapid.T) []byte { return data[:rapid.IntRange(0, len(data)-1).Draw(r, "length")] }),
			rapid.Custom(func(r *rapid.T) []byte {
				copied := bytes.Clone(data)
				copied[rapid.IntRange(0, len(data)-1).Draw(r, "at")] ^= rapid.ByteRange(1, 255).Draw(r, "bits")
				return copied
			}),
		).Draw(r, "head")
		if _, err := openHead(key, "snapshot", changed); err == nil {
			r.Error("a head that nobody sealed was opened")
		}
	})
}

func TestOneProcessFetches(t *testing.T) {
	b, here, there := newBucket(t), open(t, 0), open(t, 0)
	key, remote := put(t, here, "app", large), b.remote(t, keyOne)
	if _, err := remote.Push(t.Context(), here, key); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			use, err := remote.Fetch(t.Context(), there, key, time.Minute)
			if err != nil {
				t.Error(err)
				return
			}
			defer use.Release()
			if err := use.Verify(t.Context()).Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestSlowFetchGivesUp(t *testing.T) {
	b, here, there := newBucket(t), open(t, 0), open(t, 0)
	inputs, key := inputsOf(t, "app")
	making, err := here.Make(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(making.Dir, "pages.img"), make([]byte, 40*chunkSize), 0o600); err != nil {
		t.Fatal(err)
	}
	making.Load = time.Millisecond
	if err := making.Commit(inputs); err != nil {
		t.Fatal(err)
	}
	remote := b.remote(t, keyOne)
	if _, err := remote.Push(t.Context(), here, key); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Fetch(t.Context(), there, key, time.Minute); !errors.Is(err, ErrSlow) {
		t.Errorf("got %v", err)
	}
	if _, err := remote.Fetch(t.Context(), there, key, time.Nanosecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(there.dir, "*"+partSuffix)); err != nil || len(left) > 0 {
		t.Errorf("left in the store: %v, %v", left, err)
	}
}

func TestDamagedSnapshotIsNotPushed(t *testing.T) {
	b, here := newBucket(t), open(t, 0)
	key := put(t, here, "app", large)
	flip(t, filepath.Join(here.path(key), "pages.img"), large-1, 1)
	if _, err := b.remote(t, keyOne).Push(t.Context(), here, key); !errors.Is(err, ErrDamaged) {
		t.Fatalf("got %v", err)
	}
	if left := b.files(t, ""); len(left) > 0 {
		t.Errorf("left in the bucket: %v", left)
	}
	if _, err := here.Lookup(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("the damaged one is still in use: %v", err)
	}
}

func TestCollectRemovesTheOldestFirst(t *testing.T) {
	b, here := newBucket(t), open(t, 0)
	remote := b.remote(t, keyOne)
	keys := make(map[string]string)
	for i, app := range []string{"old", "middle", "young"} {
		keys[app] = put(t, here, app, 5000)
		seen := len(b.files(t, ""))
		if _, err := remote.Push(t.Context(), here, keys[app]); err != nil {
			t.Fatal(err)
		}
		if seen == len(b.files(t, "")) {
			t.Fatal("nothing was pushed")
		}
		name, err := remote.keys.list[0].name(keys[app])
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i-3) * 48 * time.Hour)
		for _, path := range b.files(t, "") {
			if strings.Contains(path, name) {
				if err := os.Chtimes(path, at, at); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	there := func(app string) bool {
		found, err := remote.find(t.Context(), keys[app], here.cpu)
		if err == nil {
			found.sealer.close()
		}
		return err == nil
	}
	gone, err := remote.Collect(t.Context(), 0, 5*24*time.Hour)
	if err != nil || gone.Snapshots != 1 || there("old") || !there("middle") {
		t.Fatalf("by age: %+v, %v", gone, err)
	}
	// What an abandoned push left long ago, beside the good one and alone.
	good := b.files(t, "head")[0]
	old := time.Now().Add(-2 * orphanAge)
	for _, path := range []string{
		filepath.Join(filepath.Dir(good), strings.Repeat("0", 32), "pages.img.0"),
		filepath.Join(filepath.Dir(filepath.Dir(good)), strings.Repeat("a", 64), strings.Repeat("0", 32), "pages.img.0"),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path, make([]byte, 10), 0o600), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	if gone, err := remote.Collect(t.Context(), 0, 0); err != nil || gone.Bytes != 20 || !there("middle") || !there("young") {
		t.Fatalf("orphans: %+v, %v", gone, err)
	}
	if gone, err := remote.Collect(t.Context(), 9000, 0); err != nil || gone.Snapshots != 1 || there("middle") || !there("young") {
		t.Fatalf("by bytes: %+v, %v", gone, err)
	}
}
