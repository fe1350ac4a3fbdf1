package image_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/freshet-dev/freshet/driver/image"
)

// sized is an image of a layer of its own of about a mebibyte, on one that all such have.
func sized(t testing.TB, name string) v1.Image {
	return imageOf(t, v1.Config{},
		layerOf(t, compression.GZip, file("base", strings.Repeat("b", 1<<20))), layerOf(t, compression.GZip, file(name, strings.Repeat(name, 1<<20))))
}

// unused makes the image look as if it was last used then.
func unused(t testing.TB, store string, img *image.Image, ago time.Duration) {
	t.Helper()
	at := time.Now().Add(-ago)
	if err := os.Chtimes(filepath.Join(store, "images", strings.TrimPrefix(img.Digest, "sha256:")+".json"), at, at); err != nil {
		t.Fatal(err)
	}
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list
}

func TestCollectionKeepsWhatIsUsed(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	// Room for the base and two layers, each a little over a mebibyte.
	config := image.Config{Dir: dir, MaxBytes: 3<<20 + 512<<10, MaxAge: 10 * time.Hour}
	store := openStore(t, config)
	images := make(map[string]*image.Image)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		images[name] = get(t, store, registry.push(name+":1", sized(t, name)))
	}
	task := func(name string) string { return registry.name + "/" + name + ":1" }
	for i, name := range []string{"b", "c", "d", "e"} { // a stays in use
		if err := store.Release(task(name)); err != nil {
			t.Fatal(err)
		}
		unused(t, dir, images[name], time.Duration(i+1)*time.Hour)
	}
	unused(t, dir, images["a"], 100*time.Hour)
	unused(t, dir, images["b"], 11*time.Hour)
	restarted := openStore(t, config)
	if err := restarted.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	// b was not used for too long, d and e were used before c, and a is held.
	for name, want := range map[string]bool{"a": true, "b": false, "c": true, "d": false, "e": false} {
		if got := exists(filepath.Join(dir, "images", strings.TrimPrefix(images[name].Digest, "sha256:")+".json")); got != want {
			t.Errorf("%s is there: %v, want %v", name, got, want)
		}
	}
	if left := names(t, filepath.Join(dir, "layers")); len(left) != 3 {
		t.Errorf("layers left: %v", left)
	}
	if mounts := names(t, filepath.Join(dir, "mounts")); !slices.Contains(mounts, images["a"].Content) || slices.Contains(mounts, images["c"].Content) {
		t.Errorf("mounts left: %v", mounts)
	}
	if got := read(t, images["a"].Root, "a"); len(got) != 1<<20 {
		t.Errorf("a's file has %d bytes", len(got))
	}
	if refs, trash := names(t, filepath.Join(dir, "refs")), names(t, filepath.Join(dir, "trash")); len(refs) != 2 || len(trash) != 0 {
		t.Errorf("refs %v, trash %v", refs, trash)
	}
	registry.forget()
	if got := read(t, get(t, restarted, task("c")).Root, "c"); len(got) != 1<<20 || registry.count("") != 0 {
		t.Errorf("c has %d bytes, asked %v", len(got), registry.asked)
	}
	if got := read(t, get(t, restarted, task("d")).Root, "d"); len(got) != 1<<20 || registry.count("blobs/sha256") == 0 {
		t.Errorf("d has %d bytes, asked %v", len(got), registry.asked)
	}
}

func TestCollectionLeavesNothing(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	config := image.Config{Dir: dir, MaxAge: time.Nanosecond}
	store := openStore(t, config)
	img := get(t, store, registry.push("app:1", small(t, "x")))
	for _, left := range []string{"layers/.part-" + strings.Repeat("0", 64) + "/fs", "layers/" + strings.Repeat("1", 64) + "/fs"} { // of the dead
		if err := os.MkdirAll(filepath.Join(dir, left), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Sweep(nil); err != nil {
		t.Fatal(err)
	}
	unused(t, dir, img, time.Second)
	if err := store.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"layers", "images", "refs", "mounts", "holds", "trash"} {
		if left := names(t, filepath.Join(dir, folder)); len(left) != 0 {
			t.Errorf("%s holds %v", folder, left)
		}
	}
	if left := names(t, filepath.Join(dir, "locks")); len(left) != 1 {
		t.Errorf("locks: %v", left)
	}
}

// TestCollectionBesidePulls: whatever is collected in between, an image that was got is whole while it is held.
func TestCollectionBesidePulls(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	config := image.Config{Dir: dir, MaxAge: time.Nanosecond}
	collector := openStore(t, config)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if err := collector.Collect(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	store := openStore(t, config)
	references := []string{registry.push("a:1", sized(t, "a")), registry.push("b:1", sized(t, "b"))}
	for i := range 20 {
		task := fmt.Sprint("task/", i)
		img, err := store.Image(t.Context(), image.Request{Task: task, Reference: references[i%2]})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"base", string("ab"[i%2])} {
			if got := read(t, img.Root, name); len(got) != 1<<20 {
				t.Errorf("%s has %d bytes", name, len(got))
			}
		}
		if err := store.Release(task); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-stopped
}

func TestRootsAreMountedAgainAfterAReboot(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	store := openStore(t, image.Config{Dir: dir})
	reference := registry.push("app:1", small(t, "x"))
	first := get(t, store, reference)
	unmountAll(t, dir)
	if exists(filepath.Join(first.Root, "etc/text")) {
		t.Fatal("it is still mounted")
	}
	registry.forget()
	again := get(t, openStore(t, image.Config{Dir: dir}), reference)
	if again.Root != first.Root || read(t, again.Root, "etc/text") != "x" || registry.count("") != 0 {
		t.Errorf("%+v, asked %v", again, registry.asked)
	}
}

// TestLayersBeforeACrash: those that Collect brought to the disk are used after it, others are pulled again.
func TestLayersBeforeACrash(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	reference := registry.push("app:1", small(t, "x"))
	crash := func() {
		t.Helper()
		unmountAll(t, dir)
		for _, layer := range names(t, filepath.Join(dir, "layers")) {
			path := filepath.Join(dir, "layers", layer)
			meta := strings.NewReplacer(`"boot":"`, `"boot":"another`).Replace(read(t, path, "layer.json"))
			if err := os.WriteFile(filepath.Join(path, "layer.json"), []byte(meta), 0o600); err != nil {
				t.Fatal(err)
			}
			if exists(filepath.Join(path, "safe")) {
				continue
			}
			if err := os.Truncate(filepath.Join(path, "fs/etc/text"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, collected := range []bool{false, true} {
		store := openStore(t, image.Config{Dir: dir})
		get(t, store, reference)
		if collected {
			if err := store.Collect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		crash()
		registry.forget()
		img := get(t, openStore(t, image.Config{Dir: dir}), reference)
		if got := read(t, img.Root, "etc/text"); got != "x" || (registry.count("blobs") == 0) != collected {
			t.Errorf("collected %v: the file holds %q, asked %v", collected, got, registry.asked)
		}
	}
}

func TestFailedImageIsNotHeld(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	store := openStore(t, image.Config{Dir: dir})
	reference := registry.push("app:1", small(t, "x"))
	get(t, store, reference)
	if _, err := store.Image(t.Context(), image.Request{Task: reference, Reference: registry.name + "/none:1"}); err == nil {
		t.Fatal("there is no such image")
	}
	if held := names(t, filepath.Join(dir, "holds")); len(held) != 1 {
		t.Errorf("after a failure the task holds %v", held)
	}
	if _, err := store.Image(t.Context(), image.Request{Reference: reference}); err == nil {
		t.Error("an image for no task")
	}
}
