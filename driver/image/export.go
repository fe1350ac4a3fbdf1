package image

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Part is one of the layers of an image.
type Part struct {
	// DiffID is the digest of its tar stream, in hex.
	DiffID string
	// Digest is that of its bytes where the image came from, in hex; empty where that does not say, as of archives of Docker.
	Digest string
}

// Parts are the image's layers, the lowest first.
func (i *Image) Parts() []Part {
	parts := make([]Part, len(i.layers))
	for n, l := range i.layers {
		parts[n] = Part{DiffID: l.DiffID, Digest: l.Digest}
	}
	return parts
}

// ErrNoPart says that an image has no such layer.
var ErrNoPart = errors.New("no such layer")

// OpenPart opens the bytes of a layer of the image that a request names, as they lie where it comes from: compressed or not. It
// is ErrNoPart when that image has it not. Whether they are the right bytes is for the caller to check.
func (s *Store) OpenPart(ctx context.Context, req Request, diffID string) (io.ReadCloser, error) {
	ref, err := parseReference(req.Reference)
	if err != nil {
		return nil, err
	}
	sources := s.sources(ref, req.Auth)
	rec, err := s.meaning(ctx, ref, false, sources)
	if err != nil {
		return nil, fmt.Errorf("get layer of %s: %w", req.Reference, err)
	}
	for _, l := range rec.Layers {
		if l.DiffID != diffID {
			continue
		}
		var failed []error
		for _, src := range sources {
			in, err := src.open(ctx, l)
			if err == nil {
				return in, nil
			}
			failed = append(failed, err)
		}
		return nil, fmt.Errorf("get layer of %s: %w", req.Reference, errors.Join(failed...))
	}
	return nil, ErrNoPart
}
