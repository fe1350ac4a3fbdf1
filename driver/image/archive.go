package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// indexFile lists the images of an OCI layout.
	indexFile = "index.json"
	// refName is the annotation that holds an image's tag in one.
	refName = "org.opencontainers.image.ref.name"
	// maxMeta bounds what is read into memory of an archive: manifests, configs, lists.
	maxMeta = 16 << 20
)

// files are the files of an image on the node, in a directory or in a tar file.
type files interface {
	open(name string) (io.ReadCloser, error)
}

type dirFiles string

func (d dirFiles) open(name string) (io.ReadCloser, error) {
	file, err := os.OpenInRoot(string(d), filepath.FromSlash(name))
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	return file, nil
}

// tarFiles is where each file lies in a tar file.
type tarFiles struct {
	path  string
	parts map[string]part
}

type part struct {
	offset, size int64
	link         string // the other name that holds the content
}

// readTar reads where everything lies, not what.
func readTar(path string) (*tarFiles, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	defer func() { _ = in.Close() }() // read only
	t := &tarFiles{path: path, parts: make(map[string]part)}
	reader := tar.NewReader(in) // it skips by seeking
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w (a compressed archive must be uncompressed first)", path, err)
		}
		offset, err := in.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		t.add(header, offset)
	}
}

func (t *tarFiles) add(header *tar.Header, offset int64) {
	name := path.Clean(header.Name)
	switch header.Typeflag {
	case tar.TypeReg:
		t.parts[name] = part{offset: offset, size: header.Size}
	case tar.TypeSymlink:
		t.parts[name] = part{link: path.Join(path.Dir(name), header.Linkname)} //nolint:gosec // a name in the archive, never on the disk
	case tar.TypeLink:
		t.parts[name] = part{link: path.Clean(header.Linkname)}
	}
}

func (t *tarFiles) open(name string) (io.ReadCloser, error) {
	at, ok := t.parts[path.Clean(name)]
	if ok && at.link != "" { // Docker links a layer that occurs twice; one step leads to it
		at, ok = t.parts[at.link]
	}
	if !ok || at.link != "" {
		return nil, fmt.Errorf("open image: %s: no file %s in it: %w", t.path, name, os.ErrNotExist)
	}
	file, err := os.Open(t.path)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(file, at.offset, at.size), file}, nil
}

// readMeta reads a small file whole.
func readMeta(from files, name string) ([]byte, error) {
	in, err := from.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(in, maxMeta+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxMeta {
		return nil, fmt.Errorf("read %s: more than %d bytes", name, maxMeta)
	}
	return data, nil
}

// layoutFile is an OCI layout, as a directory or in a tar file.
type layoutFile struct {
	path, tag string
	isTar     bool
}

func (f layoutFile) files() (files, error) {
	if f.isTar {
		return readTar(f.path)
	}
	return dirFiles(f.path), nil
}

func (f layoutFile) open(_ context.Context, l layer) (io.ReadCloser, error) {
	from, err := f.files()
	if err != nil {
		return nil, err
	}
	return from.open(blobName(l.Digest))
}

func blobName(digest string) string { return "blobs/sha256/" + digest }

// readBlob reads a small blob and checks that it is the one named.
func readBlob(from files, digest v1.Hash) ([]byte, error) {
	if digest.Algorithm != "sha256" || !isHex(digest.Hex) {
		return nil, fmt.Errorf("digest %s: only sha256 is known", digest)
	}
	data, err := readMeta(from, blobName(digest.Hex))
	if err == nil && hexDigest(data) != digest.Hex {
		err = fmt.Errorf("blob %s has the digest sha256:%s", digest, hexDigest(data))
	}
	return data, err
}

func (f layoutFile) resolve(context.Context) (record, error) {
	from, err := f.files()
	if err != nil {
		return record{}, err
	}
	data, err := readMeta(from, indexFile)
	if err != nil {
		return record{}, fmt.Errorf("read OCI layout: %w", err)
	}
	found, err := f.find(data)
	if err != nil {
		return record{}, err
	}
	for found.MediaType.IsIndex() { // an image for several platforms
		if data, err = readBlob(from, found.Digest); err != nil {
			return record{}, err
		}
		if found, err = forPlatform(data); err != nil {
			return record{}, err
		}
	}
	return readImage(from, found.Digest)
}

// readImage reads the manifest with this digest, and its config.
func readImage(from files, digest v1.Hash) (record, error) {
	data, err := readBlob(from, digest)
	if err != nil {
		return record{}, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return record{}, fmt.Errorf("read manifest: %w", err)
	}
	if data, err = readBlob(from, manifest.Config.Digest); err != nil {
		return record{}, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err != nil {
		return record{}, fmt.Errorf("read config: %w", err)
	}
	layers, err := layersOf(manifest)
	if err != nil {
		return record{}, err
	}
	return newRecord(digest.Hex, layers, config)
}

// find finds the tag in the layout's list, or the only image where none is named.
func (f layoutFile) find(data []byte) (v1.Descriptor, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("read %s: %w", indexFile, err)
	}
	var tags []string
	for _, m := range index.Manifests {
		tags = append(tags, m.Annotations[refName])
		if f.tag != "" && m.Annotations[refName] == f.tag {
			return m, nil
		}
	}
	switch {
	case f.tag != "":
		return v1.Descriptor{}, fmt.Errorf("%s has no image %q, but %q", f.path, f.tag, tags)
	case len(index.Manifests) == 1:
		return index.Manifests[0], nil
	}
	if found, err := forPlatform(data); err == nil { // written as one image for several platforms
		return found, nil
	}
	return v1.Descriptor{}, fmt.Errorf("%s has %d images: name one of %q after another colon", f.path, len(tags), tags)
}

// forPlatform finds the one image for this platform in a list.
func forPlatform(data []byte) (v1.Descriptor, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("read index: %w", err)
	}
	var found []v1.Descriptor
	for _, m := range index.Manifests {
		if m.Platform != nil && m.Platform.OS == "linux" && m.Platform.Architecture == runtime.GOARCH && m.MediaType != types.OCIImageIndex {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return v1.Descriptor{}, fmt.Errorf("no image for linux/%s among %d", runtime.GOARCH, len(index.Manifests))
	}
	return found[0], nil
}

// dockerFile is what `docker save` writes.
type dockerFile struct{ path, tag string }

// saved is an image in its list.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (f dockerFile) open(_ context.Context, l layer) (io.ReadCloser, error) {
	from, err := readTar(f.path)
	if err != nil {
		return nil, err
	}
	return from.open(l.File)
}

func (f dockerFile) resolve(context.Context) (record, error) {
	from, err := readTar(f.path)
	if err != nil {
		return record{}, err
	}
	data, err := readMeta(from, "manifest.json")
	if err != nil {
		return record{}, fmt.Errorf("read Docker archive: %w", err)
	}
	var list []saved
	if err := json.Unmarshal(data, &list); err != nil {
		return record{}, fmt.Errorf("read Docker archive: %w", err)
	}
	found, err := f.find(list)
	if err != nil {
		return record{}, err
	}
	if data, err = readMeta(from, found.Config); err != nil {
		return record{}, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err != nil {
		return record{}, fmt.Errorf("read config: %w", err)
	}
	layers := make([]layer, len(found.Layers))
	for i, name := range found.Layers {
		layers[i] = layer{File: name, Size: from.parts[path.Clean(name)].size}
	}
	return newRecord(hexDigest(data), layers, config)
}

func (f dockerFile) find(list []saved) (saved, error) {
	if f.tag == "" {
		if len(list) == 1 {
			return list[0], nil
		}
		return saved{}, fmt.Errorf("%s has %d images: name one after another colon, such as docker-archive:%s:app:1.2", f.path, len(list), f.path)
	}
	wanted, err := name.NewTag(f.tag)
	if err != nil {
		return saved{}, fmt.Errorf("read tag %q: %w", f.tag, err)
	}
	for _, img := range list {
		if slices.ContainsFunc(img.RepoTags, func(tag string) bool {
			has, err := name.NewTag(tag)
			return err == nil && has.Name() == wanted.Name()
		}) {
			return img, nil
		}
	}
	return saved{}, fmt.Errorf("%s has no image %s", f.path, f.tag)
}
