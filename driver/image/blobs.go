package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// blobImage is an image of the cluster's blob store: manifest, config and layers are blobs, each under its own digest.
type blobImage struct {
	store *blobs.Store
	// name is the manifest's digest in hex, or the image's name with a tag.
	name string
}

func (b blobImage) resolve(ctx context.Context) (record, error) {
	if err := b.check(); err != nil {
		return record{}, err
	}
	rec, err := b.read(ctx)
	if errors.Is(err, blobs.ErrNotFound) {
		err = fmt.Errorf("%w: it was removed, or built in another cluster: build it again", err)
	}
	return rec, err
}

func (b blobImage) read(ctx context.Context) (record, error) {
	digest := b.name
	if !isHex(digest) {
		named, err := b.store.Images().Find(ctx, b.name)
		if err != nil {
			return record{}, err
		}
		digest = named.Digest
	}
	return readImage(blobFiles{ctx: ctx, store: b.store}, v1.Hash{Algorithm: "sha256", Hex: digest})
}

func (b blobImage) open(ctx context.Context, l layer) (io.ReadCloser, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	in, err := b.store.Open(ctx, l.Digest)
	if err != nil {
		return nil, err
	}
	return in, nil
}

func (b blobImage) check() error {
	if b.store == nil {
		return spec.FieldError{
			Field: "image", Value: b.name,
			Mend: "this node has no blob store: set blobs in the driver's plugin config, or name an image of a registry",
		}
	}
	return nil
}

// blobFiles finds the blobs of an OCI layout in the store.
type blobFiles struct {
	ctx   context.Context //nolint:containedctx // lives for one reading of an image
	store *blobs.Store
}

func (f blobFiles) open(name string) (io.ReadCloser, error) {
	in, err := f.store.Open(f.ctx, path.Base(name))
	if err != nil {
		return nil, err
	}
	return in, nil
}
