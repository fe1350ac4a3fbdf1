package blobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
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
type Images struct{ named, all *Objects }

// Images are those of the store.
func (s *Store) Images() *Images {
	return &Images{named: s.Objects("images/named"), all: s.Objects("images/all")}
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

// RemoveName takes an image its name; one that has none is no error.
func (i *Images) RemoveName(ctx context.Context, name string) error {
	if err := i.named.Delete(ctx, object(name)); err != nil {
		return fmt.Errorf("remove image %s: %w", name, err)
	}
	return nil
}

// Remove forgets an image that no name means any more. Its blobs are left.
func (i *Images) Remove(ctx context.Context, digest string) error {
	if err := i.all.Delete(ctx, digest); err != nil {
		return fmt.Errorf("remove image sha256:%s: %w", digest, err)
	}
	return nil
}
