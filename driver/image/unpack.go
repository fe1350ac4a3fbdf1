package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	umoci "github.com/opencontainers/umoci/oci/layer"
)

// errRefused: what came is not what was named, or means harm. Asking again does not help.
var errRefused = errors.New("refused")

const (
	whiteout       = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// unpack writes a layer's tar stream to root as overlayfs wants to find it: what the layer removes becomes its whiteouts. What
// an entry means is umoci's matter; which entries it gets is decided here. Entries of more than most bytes are refused: a sparse
// file takes no room in the stream.
func unpack(root string, in io.Reader, most int64) (unpacked, error) {
	extractor := umoci.NewTarExtractor(&umoci.UnpackOptions{OnDiskFormat: umoci.OverlayfsRootfs{}})
	reader := tar.NewReader(in)
	names := names{dirs: make(map[string]bool), above: map[string]bool{".": true}, files: make(map[string]bool), gone: make(map[string]bool)}
	var meta unpacked
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return meta, fmt.Errorf("read entry: %w", err)
		}
		wanted, err := admit(header)
		if err != nil {
			return meta, err
		}
		if !wanted || !names.add(header) {
			continue
		}
		if meta.Bytes += onDisk(header); meta.Bytes > most {
			return meta, fmt.Errorf("%w: the layer takes more than the %d bytes that images.max_bytes allows", errRefused, most)
		}
		if err := extractor.UnpackEntry(root, header, reader); err != nil {
			return meta, fmt.Errorf("entry %q: %w", header.Name, err)
		}
		if header.Typeflag != tar.TypeDir || !names.gone[header.Name] {
			continue
		}
		opaque := &tar.Header{Name: path.Join(header.Name, whiteoutOpaque), Typeflag: tar.TypeReg} //nolint:gosec // it was admitted
		if err := extractor.UnpackEntry(root, opaque, reader); err != nil {
			return meta, fmt.Errorf("entry %q: %w", header.Name, err)
		}
	}
	var err error
	meta.Implied, err = names.implied(root)
	return meta, err
}

// admit refuses entries that reach out of the layer, and skips those that are no content.
func admit(header *tar.Header) (wanted bool, err error) {
	if !inside(header.Name) {
		return false, fmt.Errorf("%w: entry %q leads out of the layer", errRefused, header.Name)
	}
	if header.Typeflag == tar.TypeLink && !inside(header.Linkname) {
		return false, fmt.Errorf("%w: entry %q links to %q, out of the layer", errRefused, header.Name, header.Linkname)
	}
	base := path.Base(header.Name)
	if gone, is := strings.CutPrefix(base, whiteout); is {
		switch {
		case base == whiteoutOpaque:
		case strings.HasPrefix(base, whiteoutMeta):
			return false, nil // notes of AUFS to itself
		case gone == "" || gone == "." || gone == "..":
			return false, fmt.Errorf("%w: entry %q removes nothing that has a name", errRefused, header.Name)
		}
	}
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
		return false, nil
	case tar.TypeCont, tar.TypeGNUSparse: // other ways to store a file, which the reader has dealt with
		header.Typeflag = tar.TypeReg
	}
	// The host's own matters: umoci would leave them out too, with a line in the log for each.
	for _, name := range []string{"security.selinux", "system.nfs4_acl"} {
		delete(header.Xattrs, name) //nolint:staticcheck // where umoci looks for them
	}
	return true, nil
}

// inside tells whether a name stays in the layer; "/etc" is in there too.
func inside(name string) bool {
	name = strings.TrimLeft(name, "/")
	return name == "" || filepath.IsLocal(name)
}

// onDisk is what an entry takes of the disk, in blocks of 4 KiB, with one for its inode.
func onDisk(header *tar.Header) int64 {
	const block = 4 << 10
	return block + (header.Size+block-1)/block*block
}

// names are those of a layer's entries; the root is ".".
type names struct {
	dirs  map[string]bool // directories with an entry of their own
	above map[string]bool // directories with entries below them
	files map[string]bool // all else
	gone  map[string]bool // what the layer removes
}

// add notes the entry, by its clean name from now on. What a layer removes is what lower layers have of that name, never what
// it has itself, in whichever order the two come: a directory in its place is an opaque one, and a file needs nothing more.
func (n names) add(header *tar.Header) (wanted bool) {
	name := path.Clean(strings.TrimPrefix(path.Clean("/"+header.Name), "/"))
	header.Name = name
	parent, base := path.Split(name)
	if gone, is := strings.CutPrefix(base, whiteout); is && base != whiteoutOpaque {
		gone = path.Join(parent, gone)
		n.gone[gone] = true
		switch {
		case n.files[gone]:
			return false
		case n.dirs[gone] || n.above[gone]:
			header.Name = path.Join(gone, whiteoutOpaque)
		}
	} else if header.Typeflag == tar.TypeDir {
		n.dirs[name] = true
	} else if !is {
		n.files[name] = true
	}
	for parent := path.Dir(header.Name); !n.above[parent]; parent = path.Dir(parent) {
		n.above[parent] = true
	}
	return true
}

// implied are the directories without an entry of their own, which it gives the mode that such have. It follows no link: a
// name may lead through one to anywhere.
func (n names) implied(root string) ([]string, error) {
	var list []string
	real := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(n.above)) { // a directory comes before what is in it
		if !real[path.Dir(name)] {
			continue
		}
		at := filepath.Join(root, name)
		info, err := os.Lstat(at)
		if real[name] = err == nil && info.IsDir(); !real[name] || n.dirs[name] {
			continue
		}
		if err := errors.Join(os.Chmod(at, 0o755), os.Chtimes(at, time.Unix(0, 0), time.Unix(0, 0))); err != nil {
			return nil, fmt.Errorf("set mode of directory: %w", err)
		}
		list = append(list, name)
	}
	return list, nil
}
