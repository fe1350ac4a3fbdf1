package image_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/internal/eventually"
)

func TestParallelPullsFetchEachLayerOnce(t *testing.T) {
	registry, config := startRegistry(t), image.Config{Dir: t.TempDir()}
	defaults := v1.Config{
		Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"}, Env: []string{"A=b"}, User: "app", WorkingDir: "/srv",
		Volumes: map[string]struct{}{"/data": {}, "/cache": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGINT",
	}
	reference := registry.push("app:1", imageOf(t, defaults,
		layerOf(t, compression.GZip, file("a", "gzip")),
		layerOf(t, compression.ZStd, file("b", "zstd")),
		layerOf(t, compression.None, file("c", "none")),
	))
	stores := []*image.Store{openStore(t, config), openStore(t, config)} // as two processes have them
	var pulls sync.WaitGroup
	for i := range 8 {
		pulls.Go(func() {
			img, err := stores[i%2].Image(t.Context(), image.Request{Task: fmt.Sprint("task/", i), Reference: reference})
			if err != nil {
				t.Error(err)
				return
			}
			for path, want := range map[string]string{"a": "gzip", "b": "zstd", "c": "none"} {
				if got := read(t, img.Root, path); got != want {
					t.Errorf("%s holds %q", path, got)
				}
			}
			want := image.Defaults{
				Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"}, Env: []string{"A=b"}, User: "app", WorkingDir: "/srv",
				Volumes: []string{"/cache", "/data"}, ExposedPorts: []string{"80/tcp"}, StopSignal: "SIGINT",
			}
			if diff := cmp.Diff(want, img.Defaults); diff != "" {
				t.Error(diff)
			}
		})
	}
	pulls.Wait()
	if blobs, manifests := registry.count("GET /v2/app/blobs/"), registry.count("GET /v2/app/manifests/"); blobs != 4 || manifests != 1 {
		t.Errorf("%d blobs and %d manifests fetched by eight pulls of three layers and a config: %v", blobs, manifests, registry.asked)
	}
}

func TestWhatIsThereAsksNobody(t *testing.T) {
	registry := startRegistry(t)
	reference := registry.push("app:1", small(t, "one"))
	store := openStore(t, image.Config{})
	first := get(t, store, reference)
	repo, _, _ := strings.Cut(reference, ":1")
	registry.forget()
	for _, again := range []string{reference, reference, repo + "@" + first.Digest, repo + "@" + first.Digest} {
		began := time.Now()
		img, err := store.Image(t.Context(), image.Request{
			Task: "again", Reference: again, Progress: func(image.Progress) { t.Error("progress of nothing") },
		})
		if err != nil || img.Root != first.Root || img.Digest != first.Digest || img.Content != first.Content {
			t.Errorf("%+v, %v", img, err)
		}
		t.Logf("%s took %v", again, time.Since(began))
	}
	if registry.count("") != 0 {
		t.Errorf("asked again: %v", registry.asked)
	}
}

func TestProgressEndsWithAll(t *testing.T) {
	registry := startRegistry(t)
	reference := registry.push("app:1", imageOf(t, v1.Config{},
		layerOf(t, compression.None, file("a", strings.Repeat("a", 3<<20))), layerOf(t, compression.None, file("b", strings.Repeat("b", 1<<20)))))
	var told []image.Progress
	_, err := openStore(t, image.Config{}).Image(t.Context(), image.Request{
		Task: "task", Reference: reference, Progress: func(p image.Progress) { told = append(told, p) },
	})
	if err != nil {
		t.Fatal(err)
	}
	last := told[len(told)-1]
	if first := told[0]; first.Layers != 2 || first.LayersDone != 0 || first.BytesDone != 0 || first.Bytes < 4<<20 {
		t.Errorf("first: %+v", first)
	}
	if last.LayersDone != 2 || last.BytesDone != last.Bytes {
		t.Errorf("last: %+v", last)
	}
}

func TestTagsAreAskedAgain(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	reference := registry.push("app:1", small(t, "old"))
	store := openStore(t, image.Config{Dir: dir})
	text := func(store *image.Store, force bool) string {
		t.Helper()
		img, err := store.Image(t.Context(), image.Request{Task: "task", Reference: reference, Force: force})
		if err != nil {
			t.Fatal(err)
		}
		return read(t, img.Root, "etc/text")
	}
	text(store, false)
	registry.push("app:1", small(t, "new"))
	if got := text(store, false); got != "old" {
		t.Errorf("within its time the tag means %q", got)
	}
	if got := text(store, true); got != "new" {
		t.Errorf("by force the tag means %q", got)
	}
	registry.push("app:1", small(t, "newest"))
	expired := openStore(t, image.Config{Dir: dir, TagTTL: time.Nanosecond})
	if got := text(expired, false); got != "newest" {
		t.Errorf("after its time the tag means %q", got)
	}
	registry.misbehave(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusNotFound) })
	if got := text(expired, false); got != "newest" {
		t.Errorf("without the registry the tag means %q", got)
	}
	if _, err := store.Image(t.Context(), image.Request{Task: "task", Reference: reference, Force: true}); err == nil {
		t.Error("force was satisfied with an old answer")
	}
}

func TestPasswords(t *testing.T) {
	registry := startRegistry(t)
	reference := registry.push("app:1", small(t, "secret"))
	registry.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "pass" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
	file := filepath.Join(t.TempDir(), "config.json")
	content := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, registry.name, base64.StdEncoding.EncodeToString([]byte("me:pass")))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	right := image.Auth{Username: "me", Password: "pass"}
	for what, try := range map[string]struct {
		config image.Config
		auth   image.Auth
		works  bool
	}{
		"none":                {},
		"wrong":               {auth: image.Auth{Username: "me", Password: "word"}},
		"the task's":          {auth: right, works: true},
		"for this registry":   {auth: image.Auth{Username: "me", Password: "pass", Server: registry.name}, works: true},
		"for another one":     {auth: image.Auth{Username: "me", Password: "pass", Server: "registry.example"}},
		"the operator's":      {config: image.Config{DockerConfig: file}, works: true},
		"the task's is first": {config: image.Config{DockerConfig: file}, auth: image.Auth{Username: "me", Password: "word"}},
	} {
		_, err := openStore(t, try.config).Image(t.Context(), image.Request{Task: "task", Reference: reference, Auth: try.auth})
		if (err == nil) != try.works {
			t.Errorf("password %s: %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), "word") {
			t.Errorf("password %s: the error tells it: %v", what, err)
		}
	}
}

func TestMirrorsComeFirst(t *testing.T) {
	origin, mirror := startRegistry(t), startRegistry(t)
	img := small(t, "both")
	reference := origin.push("team/app:1", img)
	mirror.push("cache/team/app:1", img)
	config := func() image.Config {
		return image.Config{Mirrors: map[string][]string{origin.name: {mirror.name + "/cache"}}}
	}
	auth := image.Auth{Username: "me", Password: "pass"}
	pull := func() error {
		origin.forget()
		mirror.forget()
		_, err := openStore(t, config()).Image(t.Context(), image.Request{Task: "task", Reference: reference, Auth: auth})
		return err
	}
	var sawPassword bool
	mirror.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		_, _, has := r.BasicAuth()
		sawPassword = sawPassword || has
		next.ServeHTTP(w, r)
	})
	if err := pull(); err != nil || origin.count("") != 0 || mirror.count("blobs") != 2 {
		t.Errorf("good mirror: %v, origin %v, mirror %v", err, origin.asked, mirror.asked)
	}
	if sawPassword {
		t.Error("the mirror was told the origin's password")
	}
	mirror.misbehave(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusNotFound) })
	if err := pull(); err != nil || origin.count("blobs") != 2 {
		t.Errorf("mirror without the image: %v, origin %v", err, origin.asked)
	}
	mirror.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
			if recorded := httptest.NewRecorder(); strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(recorded, r)
				if recorded.Header().Get("Content-Length") != "" && !strings.Contains(recorded.Body.String(), "rootfs") { // not the config
					body := recorded.Body.Bytes()
					body[len(body)/2] ^= 0xff
					w.Header().Set("Content-Length", recorded.Header().Get("Content-Length"))
					_, _ = w.Write(body)
					return
				}
			}
		}
		next.ServeHTTP(w, r)
	})
	if err := pull(); err != nil || origin.count("GET /v2/team/app/blobs/") != 1 {
		t.Errorf("mirror with a rotten layer: %v, origin %v", err, origin.asked)
	}
}

func TestImageForThisPlatform(t *testing.T) {
	registry := startRegistry(t)
	mine, other := small(t, "mine"), small(t, "other")
	config, err := other.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Architecture = "s390x"
	if other, err = mutate.ConfigFile(other, config); err != nil {
		t.Fatal(err)
	}
	list := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: mine, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
	ref, err := name.ParseReference(registry.name + "/app:all")
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if err := remote.WriteIndex(ref, list, remote.WithTransport(transport)); err != nil {
		t.Fatal(err)
	}
	store := openStore(t, image.Config{})
	img := get(t, store, ref.Name())
	if got := read(t, img.Root, "etc/text"); got != "mine" {
		t.Errorf("got the image of %q", got)
	}
	digest, err := list.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if by := get(t, store, registry.name+"/app@"+digest.String()); by.Digest != img.Digest {
		t.Errorf("by the list's digest it is %s, by its tag %s", by.Digest, img.Digest)
	}
	_, err = store.Image(t.Context(), image.Request{Task: "task", Reference: registry.push("app:other", other)})
	if err == nil || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("image of another platform: %v", err)
	}
}

func TestRottenLayersAreRefused(t *testing.T) {
	registry := startRegistry(t)
	lie := imageOf(t, v1.Config{}, layerOf(t, compression.GZip, file("a", "1")))
	config, err := lie.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	lie, err = mutate.ConfigFile(lie, config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store := openStore(t, image.Config{Dir: dir, MaxBytes: 1 << 20})
	for what, try := range map[string]struct {
		img    v1.Image
		tamper func(body []byte) []byte
		says   string
	}{
		"other content":      {lie, nil, "unpacks to one with the digest"},
		"flipped bit":        {small(t, "flip"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "sha256"},
		"cut off":            {small(t, "cut"), func(b []byte) []byte { return b[:len(b)-10] }, "EOF"},
		"something appended": {small(t, "more"), func(b []byte) []byte { return append(b, "more"...) }, "sha256"},
		"too large":          {imageOf(t, v1.Config{}, layerOf(t, compression.GZip, file("a", strings.Repeat("a", 2<<20)))), nil, "images.max_bytes"},
	} {
		reference := registry.push(strings.ReplaceAll(what, " ", "-")+":1", try.img)
		if try.tamper != nil {
			layers, err := try.img.Layers()
			if err != nil {
				t.Fatal(err)
			}
			digest, err := layers[0].Digest()
			if err != nil {
				t.Fatal(err)
			}
			registry.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.String()) {
					next.ServeHTTP(w, r)
					return
				}
				recorded := httptest.NewRecorder()
				next.ServeHTTP(recorded, r)
				w.Header().Set("Content-Length", recorded.Header().Get("Content-Length"))
				body := try.tamper(recorded.Body.Bytes())
				w.Header().Set("Content-Length", fmt.Sprint(max(len(body), recorded.Body.Len())))
				_, _ = w.Write(body)
			})
		}
		_, err := store.Image(t.Context(), image.Request{Task: "task", Reference: reference})
		if err == nil || !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: %v", what, err)
		}
		registry.misbehave(nil)
	}
	for _, folder := range []string{"layers", "holds"} {
		if left, err := os.ReadDir(filepath.Join(dir, folder)); err != nil || len(left) != 0 {
			t.Errorf("%s holds %v, %v", folder, left, err)
		}
	}
}

// stall answers half of each layer, tells so, and waits for the caller to go away.
func stall(reached chan<- struct{}) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		recorded := httptest.NewRecorder()
		next.ServeHTTP(recorded, r)
		if r.Method != http.MethodGet || recorded.Body.Len() < 1<<20 {
			for key, values := range recorded.Header() {
				w.Header()[key] = values
			}
			w.WriteHeader(recorded.Code)
			_, _ = w.Write(recorded.Body.Bytes())
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(recorded.Body.Len()))
		_, _ = w.Write(recorded.Body.Bytes()[:recorded.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		reached <- struct{}{}
		<-r.Context().Done()
	}
}

func large(t testing.TB) v1.Image {
	return imageOf(t, v1.Config{}, layerOf(t, compression.None, file("one", strings.Repeat("1", 1<<20)), file("two", strings.Repeat("2", 1<<20))))
}

func TestKilledPullIsFinishedByTheNext(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	reference := registry.push("app:1", large(t))
	reached := make(chan struct{}, 8)
	registry.misbehave(stall(reached))
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir+" "+reference)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	select {
	case <-reached:
	case <-time.After(eventually.Patience):
		t.Fatal("the other process never pulled")
	}
	parts := func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "layers", ".part-*", "fs", "one"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	eventually.True(t, "half a layer is unpacked", func() bool { return len(parts()) == 1 })
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	registry.misbehave(nil)
	store := openStore(t, image.Config{Dir: dir})
	img := get(t, store, reference)
	if got := read(t, img.Root, "two"); len(got) != 1<<20 || len(parts()) != 0 {
		t.Errorf("two has %d bytes, parts left: %v", len(got), parts())
	}
	if held, err := os.ReadDir(filepath.Join(dir, "holds")); err != nil || len(held) != 2 {
		t.Errorf("held: %v, %v", held, err)
	}
	if err := store.Sweep([]string{reference}); err != nil {
		t.Fatal(err)
	}
	if held, err := os.ReadDir(filepath.Join(dir, "holds")); err != nil || len(held) != 1 {
		t.Errorf("after the sweep: %v, %v", held, err)
	}
}

func TestPullEndsWithItsContext(t *testing.T) {
	registry, dir := startRegistry(t), t.TempDir()
	reference := registry.push("app:1", large(t))
	reached := make(chan struct{}, 8)
	registry.misbehave(stall(reached))
	store := openStore(t, image.Config{Dir: dir})
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("startup_timeout is over")
	go func() { <-reached; cancel(late) }()
	_, err := store.Image(ctx, image.Request{Task: "task", Reference: reference})
	if !errors.Is(err, context.Canceled) && !errors.Is(err, late) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "layers")); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestBrokenTransfersAreTriedAgain(t *testing.T) {
	registry := startRegistry(t)
	reference := registry.push("app:1", large(t))
	broken := 0
	registry.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		recorded := httptest.NewRecorder()
		next.ServeHTTP(recorded, r)
		if r.Method == http.MethodGet && recorded.Body.Len() > 1<<20 && broken < 2 {
			broken++
			w.Header().Set("Content-Length", fmt.Sprint(recorded.Body.Len()))
			_, _ = w.Write(recorded.Body.Bytes()[:recorded.Body.Len()/2])
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
	var last image.Progress
	img, err := openStore(t, image.Config{}).Image(t.Context(), image.Request{
		Task: "task", Reference: reference, Progress: func(p image.Progress) { last = p },
	})
	if err != nil || broken != 2 {
		t.Fatalf("broken %d times: %v", broken, err)
	}
	if got := read(t, img.Root, "two"); len(got) != 1<<20 || last.BytesDone != last.Bytes {
		t.Errorf("%d bytes, %+v", len(got), last)
	}
}

func TestFullDiskLeavesTheStoreUsable(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	registry := startRegistry(t)
	little := registry.push("little:1", small(t, "fits"))
	big := registry.push("big:1", imageOf(t, v1.Config{}, layerOf(t, compression.GZip, file("a", strings.Repeat("a", 4<<20)))))
	store := openStore(t, image.Config{Dir: dir})
	_, err := store.Image(t.Context(), image.Request{Task: "task", Reference: big})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "images.max_bytes") {
		t.Errorf("got %v", err)
	}
	if got := read(t, get(t, store, little).Root, "etc/text"); got != "fits" {
		t.Errorf("got %q", got)
	}
}

func TestWrongConfigsAreNamed(t *testing.T) {
	for _, config := range []image.Config{
		{Dir: "relative"},
		{Dir: "/tmp", Insecure: []string{"http://registry.example"}},
		{Dir: "/tmp", Mirrors: map[string][]string{"registry.example": {"https://mirror.example"}}},
		{Dir: "/tmp", Mirrors: map[string][]string{"registry.example/app": {"mirror.example"}}},
		{Dir: "/tmp", DockerConfig: "/no/such/file"},
	} {
		if _, err := image.OpenStore(config, zerolog.Nop()); err == nil {
			t.Errorf("%+v was taken", config)
		} else if !slices.ContainsFunc([]string{"images.", "no such file"}, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("%+v: %v", config, err)
		}
	}
}
