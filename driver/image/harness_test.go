package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/image"
)

// childEnv makes the test binary another process of the node: it pulls one image.
const childEnv = "FRESHET_TEST_PULL"

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		dir, reference, _ := strings.Cut(task, " ")
		store, err := image.OpenStore(image.Config{Dir: dir}, zerolog.Nop())
		if err == nil {
			_, err = store.Image(context.Background(), image.Request{Task: "child", Reference: reference})
		}
		fmt.Println("done", err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// entry is one entry of a layer; what is empty is a regular file of root's.
type entry struct {
	tar.Header
	text string
}

func file(name, text string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, text: text}
}

func dir(name string, mode int64) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}}
}

func link(kind byte, name, to string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: kind, Linkname: to, Mode: 0o777}}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, e := range entries {
		e.Size = int64(len(e.text))
		if err := writer.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(writer, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// layerOf makes a layer, compressed as told.
func layerOf(t testing.TB, how compression.Compression, entries ...entry) v1.Layer {
	t.Helper()
	data := tarOf(t, entries...)
	media := types.OCILayer
	switch how {
	case compression.ZStd:
		media = types.OCILayerZStd
	case compression.None:
		return static.NewLayer(data, types.OCIUncompressedLayer)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		tarball.WithCompression(how), tarball.WithMediaType(media))
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// imageOf makes an image for this platform.
func imageOf(t testing.TB, config v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	made, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	made.OS, made.Architecture, made.Config = "linux", runtime.GOARCH, config
	if img, err = mutate.ConfigFile(img, made); err != nil {
		t.Fatal(err)
	}
	return img
}

// small is an image of one layer with one file.
func small(t testing.TB, text string) v1.Image {
	return imageOf(t, v1.Config{}, layerOf(t, compression.GZip, dir("etc", 0o755), file("etc/text", text)))
}

// host is a registry on loopback that counts what it is asked, and may be told to misbehave.
type host struct {
	name string
	t    testing.TB

	mu     sync.Mutex
	asked  map[string]int // by method and path
	tamper func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

func startRegistry(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, asked: make(map[string]int)}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked[r.Method+" "+r.URL.Path]++
		tamper := h.tamper
		h.mu.Unlock()
		if tamper != nil {
			tamper(w, r, inner)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	h.name = strings.TrimPrefix(server.URL, "http://")
	return h
}

// misbehave changes how the registry answers; nil is well.
func (h *host) misbehave(how func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tamper = how
}

// push stores the image and returns its reference.
func (h *host) push(repository string, img v1.Image) string {
	h.t.Helper()
	ref, err := name.ParseReference(h.name + "/" + repository)
	if err != nil {
		h.t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if err := remote.Write(ref, img, remote.WithTransport(transport)); err != nil {
		h.t.Fatal(err)
	}
	h.forget()
	return ref.Name()
}

func (h *host) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.asked)
}

// count is how many requests had the text in method and path.
func (h *host) count(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := 0
	for path, n := range h.asked {
		if strings.Contains(path, text) {
			sum += n
		}
	}
	return sum
}

// openStore opens a store in a fresh directory, or in config's.
func openStore(t testing.TB, config image.Config) *image.Store {
	t.Helper()
	if config.Dir == "" {
		config.Dir = t.TempDir()
	}
	store, err := image.OpenStore(config, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		store.Close()
		unmountAll(t, config.Dir)
	})
	return store
}

// unmountAll does what a reboot does to a store.
func unmountAll(t testing.TB, store string) {
	t.Helper()
	mounts, err := os.ReadDir(filepath.Join(store, "mounts"))
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range mounts { // sorted: what lies on a base comes before it
		err := unix.Unmount(filepath.Join(store, "mounts", mount.Name()), 0)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("unmount %s: %v", mount.Name(), err)
		}
	}
}

// get gets the image for a task named as the reference.
func get(t testing.TB, store *image.Store, reference string) *image.Image {
	t.Helper()
	img, err := store.Image(t.Context(), image.Request{Task: reference, Reference: reference})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func read(t testing.TB, root, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
