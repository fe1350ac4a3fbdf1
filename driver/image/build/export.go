package build

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/internal/blobs"
)

// Export puts the image into the blob store as the OCI image specification has it: manifest, config and layers, each under its own
// digest. What is there already is not brought again. Images that are equal have the same digest. It does not record the image.
func (b *Builder) Export(ctx context.Context, built *Result, to *blobs.Store) (blobs.Image, error) {
	stored := blobs.Image{Built: time.Now()}
	if built.Image == nil {
		return stored, errors.New("store image: there is nothing in it: copy or run something in its last stage")
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	config := v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, Config: built.Config.oci(), RootFS: v1.RootFS{Type: "layers"}}
	e := &export{builder: b, to: to, bases: built.Bases}
	for _, part := range built.Image.Parts() {
		layer, err := e.layer(ctx, part)
		if err != nil {
			return stored, fmt.Errorf("store layer sha256:%s: %w", part.DiffID, err)
		}
		stored.Bytes += layer.Size
		manifest.Layers = append(manifest.Layers, layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, v1.Hash{Algorithm: "sha256", Hex: part.DiffID})
	}
	var err error
	if manifest.Config, err = e.document(ctx, types.OCIConfigJSON, config); err != nil {
		return stored, err
	}
	whole, err := e.document(ctx, types.OCIManifestSchema1, manifest)
	stored.Digest, stored.Bytes = whole.Digest.Hex, stored.Bytes+whole.Size+manifest.Config.Size
	return stored, err
}

// oci is the config as the OCI image specification has it.
func (c Config) oci() v1.Config {
	set := func(names []string) map[string]struct{} {
		if len(names) == 0 {
			return nil
		}
		all := make(map[string]struct{}, len(names))
		for _, name := range names {
			all[name] = struct{}{}
		}
		return all
	}
	return v1.Config{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir, Labels: c.Labels, Shell: c.Shell,
		Volumes: set(c.Volumes), ExposedPorts: set(c.ExposedPorts), StopSignal: c.StopSignal,
	}
}

// export is one image on its way to the blob store.
type export struct {
	builder *Builder
	to      *blobs.Store
	bases   []image.Request
}

// document stores something as JSON.
func (e *export) document(ctx context.Context, kind types.MediaType, what any) (v1.Descriptor, error) {
	data, err := json.Marshal(what)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("encode %s: %w", kind, err)
	}
	sum := sha256.Sum256(data)
	described := v1.Descriptor{MediaType: kind, Size: int64(len(data)), Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
	return described, e.to.Put(ctx, described.Digest.Hex, bytes.NewReader(data))
}

// layer stores a layer unless it is there, and says how it lies there.
func (e *export) layer(ctx context.Context, part image.Part) (v1.Descriptor, error) {
	if known, ok := e.builder.packed(part.DiffID); ok {
		there, err := e.to.Has(ctx, known.Digest.Hex)
		if there || err != nil {
			return known, err
		}
	}
	in, err := e.open(ctx, part)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer func() { _ = in.Close() }() // read only
	packed, err := e.pack(ctx, part, in)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return packed, e.builder.remember(part.DiffID, packed)
}

// open opens a layer's bytes: as a step made them, else as they are in one of the images that it is based on.
func (e *export) open(ctx context.Context, part image.Part) (io.ReadCloser, error) {
	file, err := os.Open(e.builder.layerPath(part.DiffID))
	if err == nil {
		return file, nil
	}
	failed := fmt.Errorf("open layer: %w", err)
	for _, base := range e.bases {
		in, err := e.builder.Images.OpenPart(ctx, base, part.DiffID)
		if err == nil {
			return in, nil
		}
		if !errors.Is(err, image.ErrNoPart) {
			failed = err
		}
	}
	return nil, failed
}

// pack stores a layer, compressed where it is not yet. The digest is needed before the first byte is stored, so it goes through a
// file.
func (e *export) pack(ctx context.Context, part image.Part, in io.Reader) (packed v1.Descriptor, err error) {
	var work scratch
	defer func() { err = errors.Join(err, work.remove()) }()
	dir, err := work.dir(e.builder)
	if err != nil {
		return packed, err
	}
	file, err := os.Create(filepath.Join(dir, "layer"))
	if err != nil {
		return packed, fmt.Errorf("pack layer: %w", err)
	}
	defer func() { _ = file.Close() }() // it is removed
	came, sum := sha256.New(), sha256.New()
	packed.MediaType, err = compress(io.MultiWriter(file, sum), io.TeeReader(in, came))
	if err != nil {
		return packed, err
	}
	if got := hex.EncodeToString(came.Sum(nil)); part.Digest != "" && got != part.Digest && got != part.DiffID {
		return packed, fmt.Errorf("what its base image gave has the digest sha256:%s", got)
	}
	if packed.Size, err = file.Seek(0, io.SeekCurrent); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return packed, fmt.Errorf("pack layer: %w", err)
	}
	packed.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	return packed, e.to.Put(ctx, packed.Digest.Hex, file)
}

// compress copies a layer; one that is compressed already stays as it is. The same layer gives the same bytes each time.
func compress(out io.Writer, in io.Reader) (types.MediaType, error) {
	buffered := bufio.NewReaderSize(in, 1<<20)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read layer: %w", err)
	}
	kind := types.OCILayer
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		_, err = io.Copy(out, buffered)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		kind = types.OCILayerZStd
		_, err = io.Copy(out, buffered)
	default:
		var packer *gzip.Writer
		if packer, err = gzip.NewWriterLevel(out, gzip.BestSpeed); err == nil {
			_, err = io.Copy(packer, buffered)
			err = errors.Join(err, packer.Close())
		}
	}
	if err != nil {
		return "", fmt.Errorf("pack layer: %w", err)
	}
	return kind, nil
}

func (b *Builder) packedPath(diffID string) string {
	return filepath.Join(b.Dir, layersDir, diffID+".packed.json")
}

// packed is how a layer was stored before.
func (b *Builder) packed(diffID string) (v1.Descriptor, bool) {
	var known v1.Descriptor
	data, err := os.ReadFile(b.packedPath(diffID))
	return known, err == nil && json.Unmarshal(data, &known) == nil
}

func (b *Builder) remember(diffID string, packed v1.Descriptor) error {
	data, err := json.Marshal(packed)
	if err == nil {
		err = writeWhole(b.packedPath(diffID), data)
	}
	if err != nil {
		return fmt.Errorf("remember how a layer is stored: %w", err)
	}
	return nil
}
