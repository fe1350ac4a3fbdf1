package image_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/internal/blobs"
)

// put stores an image in a blob store, as a build does, under a name.
func put(t *testing.T, store *blobs.Store, called string, img v1.Image) {
	t.Helper()
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	putBlob(t, store, digest, bytes.NewReader(manifest))
	configDigest, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	putBlob(t, store, configDigest, bytes.NewReader(config))
	for _, layer := range layers {
		layerDigest, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		in, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		putBlob(t, store, layerDigest, in)
	}
	if err := store.Images().Put(t.Context(), blobs.Image{Name: called, Digest: digest.Hex}); err != nil {
		t.Fatal(err)
	}
}

func putBlob(t *testing.T, store *blobs.Store, digest v1.Hash, in io.Reader) {
	t.Helper()
	if err := store.Put(t.Context(), digest.Hex, in); err != nil {
		t.Fatal(err)
	}
}

// TestStandInsAreForTagsAlone: the cluster's image that stands for a registry's is what the tag means, and never what a digest does; a
// registry is asked for what has none.
func TestStandInsAreForTagsAlone(t *testing.T) {
	cluster, err := blobs.Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	put(t, cluster, "registry.invalid/team/app:1", small(t, "stands in"))
	put(t, cluster, "docker.io/library/debian:12-slim", small(t, "debian's"))
	store := openStore(t, image.Config{Blobs: cluster})
	for reference, text := range map[string]string{
		"registry.invalid/team/app:1": "stands in", "debian:12-slim": "debian's", "docker.io/library/debian:12-slim": "debian's",
	} {
		if got := read(t, get(t, store, reference).Root, "etc/text"); got != text {
			t.Errorf("%s is %q", reference, got)
		}
	}
	h := startRegistry(t)
	if got := read(t, get(t, store, h.push("team/app:1", small(t, "registry's"))).Root, "etc/text"); got != "registry's" {
		t.Errorf("an image with no stand-in is %q", got)
	}
	byDigest := "registry.invalid/team/app@sha256:" + strings.Repeat("0", 64)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for reference, why := range map[string]string{byDigest: "registry.invalid", "registry.invalid/team/app:2": "no image that stands for registry.invalid/team/app:2"} {
		_, err := store.Image(ctx, image.Request{Task: "t", Reference: reference})
		if err == nil || !strings.Contains(err.Error(), why) || reference == byDigest && strings.Contains(err.Error(), "stands for") {
			t.Errorf("%s: %v", reference, err)
		}
	}
}
