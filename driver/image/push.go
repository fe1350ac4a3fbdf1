package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// Push writes an image of the blob store, by its digest in hex, to a registry under the reference. What the registry has is not sent.
func (s *Store) Push(ctx context.Context, digest, reference string, auth Auth) error {
	ref, err := parseReference(reference)
	if err != nil {
		return err
	}
	if ref.registry == nil {
		return spec.FieldError{Field: "build.push", Value: reference, Mend: "name a registry's, such as registry.example/app:1.2"}
	}
	target := ref.registry
	if slices.Contains(s.config.Insecure, target.Context().RegistryStr()) {
		if target, err = name.ParseReference(target.Name(), name.Insecure); err != nil {
			return fmt.Errorf("push image: %w", err)
		}
	}
	stored, err := openStored(ctx, s.config.Blobs, digest)
	if err != nil {
		return fmt.Errorf("push image: %w", err)
	}
	img, err := partial.CompressedToImage(stored)
	if err != nil {
		return fmt.Errorf("push image: %w", err)
	}
	err = remote.Write(target, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(s.keychain(ref.registry, auth)),
		remote.WithTransport(s.transport), remote.WithUserAgent("freshet"), remote.WithJobs(parallel()))
	if err != nil {
		return fmt.Errorf("push image to %s: %w", reference, err)
	}
	return nil
}

// stored is an image of the blob store.
type stored struct {
	blobImage
	ctx              context.Context //nolint:containedctx // lives for one push
	manifest, config []byte
	layers           []v1.Descriptor
}

func openStored(ctx context.Context, store *blobs.Store, digest string) (*stored, error) {
	s := &stored{blobImage: blobImage{store: store, name: digest}, ctx: ctx}
	if err := s.check(); err != nil {
		return nil, err
	}
	from := blobFiles{ctx: ctx, store: store}
	var err error
	if s.manifest, err = readBlob(from, v1.Hash{Algorithm: "sha256", Hex: digest}); err != nil {
		return nil, err
	}
	manifest, err := partial.Manifest(s)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	s.layers = manifest.Layers
	s.config, err = readBlob(from, manifest.Config.Digest)
	return s, err
}

var _ partial.CompressedImageCore = (*stored)(nil)

// RawManifest implements partial.CompressedImageCore.
func (s *stored) RawManifest() ([]byte, error) { return s.manifest, nil }

// RawConfigFile implements partial.CompressedImageCore.
func (s *stored) RawConfigFile() ([]byte, error) { return s.config, nil }

// MediaType implements partial.CompressedImageCore.
func (s *stored) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// LayerByDigest implements partial.CompressedImageCore.
func (s *stored) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	at := slices.IndexFunc(s.layers, func(l v1.Descriptor) bool { return l.Digest == digest })
	if at < 0 {
		return nil, errors.New("no such layer")
	}
	return storedLayer{image: s, Descriptor: s.layers[at]}, nil
}

// storedLayer is one of its layers.
type storedLayer struct {
	v1.Descriptor
	image *stored
}

// Digest implements partial.CompressedLayer.
func (l storedLayer) Digest() (v1.Hash, error) { return l.Descriptor.Digest, nil }

// Size implements partial.CompressedLayer.
func (l storedLayer) Size() (int64, error) { return l.Descriptor.Size, nil }

// MediaType implements partial.CompressedLayer.
func (l storedLayer) MediaType() (types.MediaType, error) { return l.Descriptor.MediaType, nil }

// Compressed implements partial.CompressedLayer.
func (l storedLayer) Compressed() (io.ReadCloser, error) {
	return l.image.open(l.image.ctx, layer{Digest: l.Descriptor.Digest.Hex})
}
