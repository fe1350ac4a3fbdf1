package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"
)

// Layer is a layer that was made on this node.
type Layer struct {
	// DiffID is the digest of the layer's tar stream, in hex.
	DiffID string
	// Size is the stream's, in bytes.
	Size int64
	// Open reads the stream.
	Open func() (io.ReadCloser, error)
}

// Extend makes an image of the layers of another one, which may be nil, and one more on top, and holds it for the task until
// Release. The base must be held as well.
func (s *Store) Extend(ctx context.Context, task string, base *Image, top Layer, defaults Defaults) (*Image, error) {
	var rec record
	if base != nil {
		rec.Layers = slices.Clone(base.layers)
	}
	rec.Layers, rec.Defaults = append(rec.Layers, layer{DiffID: top.DiffID, Size: top.Size}), defaults
	if len(rec.Layers) > maxLayers {
		return nil, fmt.Errorf("extend image: it would have %d layers, more than the %d that can be mounted: join some steps", len(rec.Layers), maxLayers)
	}
	made, err := s.compose(ctx, task, rec, &top)
	if err != nil {
		return nil, fmt.Errorf("extend image: %w", err)
	}
	return made, nil
}

// Configure makes an image of the layers of another one, with another word on how to run it, and holds it for the task.
func (s *Store) Configure(ctx context.Context, task string, base *Image, defaults Defaults) (*Image, error) {
	made, err := s.compose(ctx, task, record{Layers: base.layers, Defaults: defaults}, nil)
	if err != nil {
		return nil, fmt.Errorf("configure image: %w", err)
	}
	return made, nil
}

// compose makes an image of what is there and of the layer that is given, if any.
func (s *Store) compose(ctx context.Context, task string, rec record, top *Layer) (_ *Image, err error) {
	data, err := json.Marshal(rec)
	if err != nil {
		return nil, err
	}
	rec.Digest = hexDigest(data)
	held, err := s.hold(ctx, task, rec)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			held.undo()
		}
	}()
	if top != nil {
		if err := s.addLayer(ctx, *top); err != nil {
			return nil, err
		}
	}
	root, err := s.roots.mount(ctx, rec, &s.layers)
	if err != nil {
		return nil, err
	}
	return newImage(rec, root), nil
}

// addLayer unpacks the layer unless it is there.
func (s *Store) addLayer(ctx context.Context, l Layer) error {
	lock, err := s.locks.lock(ctx, layerLock(l.DiffID), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	if s.layers.has(l.DiffID) {
		return nil
	}
	in, err := l.Open()
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer func() { _ = in.Close() }() // read only
	return s.layers.make(ctx, layer{DiffID: l.DiffID, Size: l.Size}, in)
}

func newImage(rec record, root string) *Image {
	return &Image{Digest: "sha256:" + rec.Digest, Content: rec.content(), Root: root, Defaults: rec.Defaults, layers: rec.Layers}
}
