package image_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/freshet-dev/freshet/driver/image"
)

// writeLayout writes the images as an OCI layout; with more than one, each is tagged by its place: "0", "1".
func writeLayout(t testing.TB, images ...v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for i, img := range images {
		var options []layout.Option
		if len(images) > 1 {
			options = append(options, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": string(rune('0' + i))}))
		}
		if err := path.AppendImage(img, options...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// pack makes a tar file of a directory.
func pack(t testing.TB, dir string) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "packed.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	writer := tar.NewWriter(out)
	if err := writer.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

func TestImagesOfTheNode(t *testing.T) {
	one := imageOf(t, v1.Config{User: "me"}, layerOf(t, compression.GZip, file("text", "one")), layerOf(t, compression.ZStd, file("more", "")))
	two := imageOf(t, v1.Config{}, layerOf(t, compression.None, file("text", "two")))
	single, several := writeLayout(t, one), writeLayout(t, one, two)
	docker := filepath.Join(t.TempDir(), "docker.tar")
	tags := make(map[name.Tag]v1.Image)
	for tag, img := range map[string]v1.Image{"app:1": one, "app:2": two} {
		parsed, err := name.NewTag(tag)
		if err != nil {
			t.Fatal(err)
		}
		tags[parsed] = img
	}
	if err := tarball.MultiWriteToFile(docker, tags); err != nil {
		t.Fatal(err)
	}
	store := openStore(t, image.Config{})
	for reference, want := range map[string]string{
		"oci:" + single:                          "one",
		"oci:" + several + ":1":                  "two",
		"oci-archive:" + pack(t, single):         "one",
		"oci-archive:" + pack(t, several) + ":0": "one",
		"docker-archive:" + docker + ":app:1":    "one",
		"docker-archive:" + docker + ":app:2":    "two",
	} {
		img := get(t, store, reference)
		if got := read(t, img.Root, "text"); got != want {
			t.Errorf("%s is %q", reference, got)
		}
		if want == "one" && img.Defaults.User != "me" {
			t.Errorf("%s: %+v", reference, img.Defaults)
		}
	}
	for reference, says := range map[string]string{
		"oci:" + several:                  "name one of",
		"oci:" + several + ":2":           `no image "2"`,
		"docker-archive:" + docker:        "2 images",
		"docker-archive:" + docker + ":b": "no image b",
		"docker-archive:/no/such.tar":     "no such file",
		"oci:" + filepath.Dir(docker):     "no such file",
		"oci-archive:" + docker:           "index.json",
	} {
		if _, err := store.Image(t.Context(), image.Request{Task: "task", Reference: reference}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want something about %q", reference, err, says)
		}
	}
}

func TestChangedArchiveIsAnotherImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.tar")
	store := openStore(t, image.Config{})
	for i, text := range []string{"first", "second"} {
		if err := os.Rename(pack(t, writeLayout(t, small(t, text))), path); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(i), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		if got := read(t, get(t, store, "oci-archive:"+path).Root, "etc/text"); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
}

func TestLyingLayoutsAreRefused(t *testing.T) {
	for _, what := range []string{"manifest", "config", "layer"} {
		img := small(t, what)
		manifest, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		dir := writeLayout(t, img)
		blob := filepath.Join(dir, "blobs", "sha256", map[string]string{"manifest": digest.Hex, "config": manifest.Config.Digest.Hex, "layer": manifest.Layers[0].Digest.Hex}[what])
		data, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blob, append(data, ' '), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = openStore(t, image.Config{}).Image(t.Context(), image.Request{Task: "task", Reference: "oci:" + dir})
		if err == nil || !strings.Contains(err.Error(), "has the digest") && !strings.Contains(err.Error(), "came with the digest") {
			t.Errorf("changed %s: %v", what, err)
		}
	}
}
