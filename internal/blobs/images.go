package blobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	// Reference begins references to images of the cluster's blob store, which builds put there: "sha256:" and the digest of the manifest
	// follow, or the image's name.
	Reference = "freshet-image://"
	// BuiltLine begins the last line that a build says which did not fail; the image's digest follows, in hex.
	BuiltLine = "image " + Reference + "sha256:"
)

// DefaultTag is that of an image whose name has none.
const DefaultTag = "latest"

// maxRecord bounds a record of an image.
const maxRecord = 64 << 10

// Image is what the cluster knows of an image that was built in it.
type Image struct {
	// Name is its name with a tag; empty for one that has only its digest.
	Name string `json:"name,omitempty"`
	// Digest is that of its manifest, in hex, which is a blob.
	Digest string `json:"digest"`
	// Bytes is what its blobs take together; other images may share some.
	Bytes int64 `json:"bytes"`
	// Built is when.
	Built time.Time `json:"built"`
}

// Images are the images that were built in the cluster, by name and by digest.
type Images struct {
	store      *Store
	named, all *Objects
}

// Images are those of the store.
func (s *Store) Images() *Images {
	return &Images{store: s, named: s.Objects("images/named"), all: s.Objects("images/all")}
}

// WithTag is the name with a tag: DefaultTag where it has none.
func WithTag(name string) string {
	if strings.Contains(name, ":") {
		return name
	}
	return name + ":" + DefaultTag
}

// object is the record's name: colons are not for objects.
func object(name string) string { return strings.Replace(WithTag(name), ":", "/", 1) }

// Put records an image, under its name too where it has one. The name then means this one.
func (i *Images) Put(ctx context.Context, image Image) error {
	if image.Name != "" {
		image.Name = WithTag(image.Name)
	}
	data, err := json.Marshal(image)
	if err != nil {
		return fmt.Errorf("record image: %w", err)
	}
	if err := i.all.Put(ctx, image.Digest, data); err != nil {
		return fmt.Errorf("record image: %w", err)
	}
	if image.Name == "" {
		return nil
	}
	if err := i.named.Put(ctx, object(image.Name), data); err != nil {
		return fmt.Errorf("record image %s: %w", image.Name, err)
	}
	return nil
}

// Find finds what a name means now; ErrNotFound when there is no such image.
func (i *Images) Find(ctx context.Context, name string) (Image, error) {
	data, err := i.named.Get(ctx, object(name), maxRecord)
	if errors.Is(err, ErrName) {
		err = ErrNotFound
	}
	if err != nil {
		return Image{}, fmt.Errorf("find image %s: %w", name, err)
	}
	var image Image
	if err := json.Unmarshal(data, &image); err != nil {
		return Image{}, fmt.Errorf("find image %s: %w", name, err)
	}
	return image, nil
}

// Built finds an image by its digest, in hex; ErrNotFound when there is none. Its name is the one that it got last.
func (i *Images) Built(ctx context.Context, digest string) (Image, error) {
	data, err := i.all.Get(ctx, digest, maxRecord)
	if errors.Is(err, ErrName) {
		err = ErrNotFound
	}
	if err != nil {
		return Image{}, fmt.Errorf("find image sha256:%s: %w", digest, err)
	}
	var image Image
	if err := json.Unmarshal(data, &image); err != nil {
		return Image{}, fmt.Errorf("find image sha256:%s: %w", digest, err)
	}
	return image, nil
}

// List lists the images with a name, then those that no name means.
func (i *Images) List(ctx context.Context) ([]Image, error) {
	var list []Image
	seen := make(map[string]bool)
	for _, folder := range []*Objects{i.named, i.all} {
		err := folder.List(ctx, func(o Object) error {
			data, err := folder.Get(ctx, o.Name, maxRecord)
			if errors.Is(err, ErrNotFound) {
				return nil // removed meanwhile
			}
			var image Image
			if err == nil {
				err = json.Unmarshal(data, &image)
			}
			if err != nil {
				return err
			}
			if folder == i.all {
				if seen[image.Digest] {
					return nil
				}
				image.Name = "" // which means another one by now
			}
			seen[image.Digest] = true
			list = append(list, image)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
	}
	return list, nil
}

// Remove removes an image by its name, or by "sha256:" and its digest: ErrNotFound when there is none. An image that has another name
// keeps that and its blobs. Blobs that other images have too stay.
func (i *Images) Remove(ctx context.Context, image string) error {
	digest, byDigest := strings.CutPrefix(image, "sha256:")
	all, err := i.List(ctx)
	if err != nil {
		return err
	}
	found, rest := divide(all, func(one Image) bool {
		return byDigest && one.Digest == digest || !byDigest && one.Name == WithTag(image)
	})
	if len(found) == 0 {
		return fmt.Errorf("remove image %s: %w", image, ErrNotFound)
	}
	for _, one := range found {
		if one.Name == "" {
			continue
		}
		if err := i.named.Delete(ctx, object(one.Name)); err != nil {
			return fmt.Errorf("remove image %s: %w", image, err)
		}
	}
	digest = found[0].Digest
	if slices.ContainsFunc(rest, func(one Image) bool { return one.Digest == digest }) {
		return nil
	}
	if err := i.sweep(ctx, digest, rest); err != nil {
		return fmt.Errorf("remove image %s: %w", image, err)
	}
	return nil
}

func divide(all []Image, is func(Image) bool) (found, rest []Image) {
	for _, one := range all {
		if is(one) {
			found = append(found, one)
		} else {
			rest = append(rest, one)
		}
	}
	return found, rest
}

// sweep removes an image's record, and those of its blobs that no other image has.
func (i *Images) sweep(ctx context.Context, digest string, rest []Image) error {
	own, err := i.blobsOf(ctx, digest)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	kept := make(map[string]bool)
	for _, one := range rest {
		shared, err := i.blobsOf(ctx, one.Digest)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		for _, blob := range shared {
			kept[blob] = true
		}
	}
	if err := i.all.Delete(ctx, digest); err != nil {
		return err
	}
	for _, blob := range own {
		if kept[blob] {
			continue
		}
		if err := i.store.Delete(ctx, blob); err != nil {
			return err
		}
	}
	return nil
}

// maxManifest bounds an image's manifest.
const maxManifest = 4 << 20

// blobsOf are the digests of an image's manifest, config and layers.
func (i *Images) blobsOf(ctx context.Context, digest string) ([]string, error) {
	in, err := i.store.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(in, maxManifest))
	if err != nil {
		return nil, err
	}
	type descriptor struct {
		Digest string `json:"digest"`
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, fmt.Errorf("read manifest of image sha256:%s: %w", digest, err)
	}
	all := []string{digest}
	for _, blob := range append(manifest.Layers, manifest.Config) {
		all = append(all, strings.TrimPrefix(blob.Digest, "sha256:"))
	}
	return all, nil
}
