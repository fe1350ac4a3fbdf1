package build

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/driver/image"
)

const (
	layersDir = "layers"
	partsDir  = "parts"
	// partPrefix begins the names of files that are not yet whole.
	partPrefix = ".part-"
	// whiteout and opaque are how the OCI image specification says that a layer removes something.
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	// opaqueAttribute is how an overlay says it.
	opaqueAttribute = "SCHILY.xattr.trusted.overlay.opaque"
)

// mountedDirs are the places where a sandbox mounts its own file systems, and makes them where they are missing.
var mountedDirs = []string{"proc", "sys", "dev"} //nolint:gochecknoglobals // a constant list

// made is what a step made: a layer, or nothing where DiffID is empty.
type made struct {
	DiffID string `json:"diff_id,omitempty"`
	Size   int64  `json:"size,omitempty"`
}

func (b *Builder) layerPath(diffID string) string {
	return filepath.Join(b.Dir, layersDir, diffID+".tar")
}

func (b *Builder) recordPath(key string) string { return filepath.Join(b.Dir, layersDir, key+".json") }

// lookup finds what a step with this key made before.
func (b *Builder) lookup(key string) (made, bool) {
	var m made
	data, err := os.ReadFile(b.recordPath(key))
	if err != nil || json.Unmarshal(data, &m) != nil {
		return made{}, false
	}
	now := time.Now()
	used := os.Chtimes(b.recordPath(key), now, now) // what was used last is collected last
	if m.DiffID == "" {
		return m, used == nil
	}
	info, err := os.Stat(b.layerPath(m.DiffID))
	return m, errors.Join(used, err) == nil && info.Size() == m.Size && os.Chtimes(b.layerPath(m.DiffID), now, now) == nil
}

// keep writes down what a step with this key made, whole or not at all.
func (b *Builder) keep(key string, l *layerWriter) (made, error) {
	m, err := l.finish()
	if err != nil {
		return made{}, err
	}
	if m.DiffID != "" {
		if err := os.Rename(l.file.Name(), b.layerPath(m.DiffID)); err != nil {
			return made{}, fmt.Errorf("keep layer: %w", err)
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return made{}, fmt.Errorf("keep layer: %w", err)
	}
	if err := writeWhole(b.recordPath(key), data); err != nil {
		return made{}, fmt.Errorf("keep layer: %w", err)
	}
	return m, nil
}

// writeWhole writes a file, whole or not at all.
func writeWhole(path string, data []byte) error {
	part, err := os.CreateTemp(filepath.Dir(path), partPrefix+"*")
	if err != nil {
		return err
	}
	_, err = part.Write(data)
	if err = errors.Join(err, part.Close()); err == nil {
		err = os.Rename(part.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part.Name()))
	}
	return nil
}

// layer is what the image store unpacks.
func (b *Builder) layer(m made) image.Layer {
	return image.Layer{DiffID: m.DiffID, Size: m.Size, Open: func() (io.ReadCloser, error) { return os.Open(b.layerPath(m.DiffID)) }}
}

// layerWriter writes a layer's tar stream to a file and sums it up.
type layerWriter struct {
	*tar.Writer
	file    *os.File
	sum     io.Writer
	digest  func() string
	entries int
	// gone is the first entry that said that something was removed.
	gone string
}

func newLayerWriter(dir string) (*layerWriter, error) {
	file, err := os.CreateTemp(dir, "layer-*")
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	sum := sha256.New()
	l := &layerWriter{file: file, sum: sum, digest: func() string { return hex.EncodeToString(sum.Sum(nil)) }}
	l.Writer = tar.NewWriter(io.MultiWriter(file, sum))
	return l, nil
}

// WriteHeader begins an entry.
func (l *layerWriter) WriteHeader(header *tar.Header) error {
	l.entries++
	return l.Writer.WriteHeader(header)
}

// finish ends the stream. A layer without entries is none.
func (l *layerWriter) finish() (made, error) {
	err := l.Writer.Close()
	size, sought := l.file.Seek(0, io.SeekEnd)
	if err = errors.Join(err, sought, l.file.Close()); err != nil {
		return made{}, fmt.Errorf("write layer: %w", err)
	}
	if l.entries == 0 {
		return made{}, nil
	}
	return made{DiffID: l.digest(), Size: size}, nil
}

// writeUpper writes what a sandbox's overlay holds as a layer. gVisor gives it as the overlay has it: what is removed is a device
// with the number 0, as in Linux's overlayfs (docs.kernel.org/filesystems/overlayfs.html).
func (l *layerWriter) writeUpper(in io.Reader) error {
	reader := tar.NewReader(in)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read what the step changed: %w", err)
		}
		if err := l.writeUpperEntry(header, reader); err != nil {
			return fmt.Errorf("write %s: %w", header.Name, err)
		}
	}
}

// removed tells whether an entry says that something is gone. All such devices are one file, of which the second and later ones come as
// links to the first.
func (l *layerWriter) removed(header *tar.Header) bool {
	if header.Typeflag == tar.TypeChar && header.Devmajor == 0 && header.Devminor == 0 {
		l.gone = header.Name
		return true
	}
	return header.Typeflag == tar.TypeLink && l.gone != "" && header.Linkname == l.gone
}

func (l *layerWriter) writeUpperEntry(header *tar.Header, content io.Reader) error {
	header.Name = clean(header.Name)
	if header.Typeflag == tar.TypeLink {
		header.Linkname = clean(header.Linkname)
	}
	header.Format = tar.FormatPAX
	isOpaque := header.PAXRecords[opaqueAttribute] != ""
	for name := range header.PAXRecords { // the overlay's own notes
		if strings.HasPrefix(name, "SCHILY.xattr.trusted.overlay.") {
			delete(header.PAXRecords, name)
		}
	}
	switch {
	case header.Name == "." || slices.Contains(mountedDirs, header.Name):
		return nil
	case l.removed(header):
		return l.WriteHeader(&tar.Header{Name: path.Join(path.Dir(header.Name), whiteout+path.Base(header.Name)), Typeflag: tar.TypeReg})
	}
	if err := l.WriteHeader(header); err != nil {
		return err
	}
	if isOpaque {
		return l.WriteHeader(&tar.Header{Name: path.Join(header.Name, opaque), Typeflag: tar.TypeReg}) //nolint:gosec // nothing is unpacked here
	}
	_, err := io.Copy(l, content)
	return err
}

// scratch is the directories that a build needs while it runs.
type scratch struct {
	mu   sync.Mutex
	dirs []string
}

// dir makes one in the builder's directory.
func (s *scratch) dir(b *Builder) (string, error) {
	parent := cmp.Or(b.Work, filepath.Join(b.Dir, partsDir))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", fmt.Errorf("make build directory: %w", err)
	}
	dir, err := os.MkdirTemp(parent, "step-*")
	if err != nil {
		return "", fmt.Errorf("make build directory: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirs = append(s.dirs, dir)
	return dir, nil
}

func (s *scratch) remove() error {
	var failed []error
	for _, dir := range s.dirs {
		failed = append(failed, os.RemoveAll(dir))
	}
	return errors.Join(failed...)
}
