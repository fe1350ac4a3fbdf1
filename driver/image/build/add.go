package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/ulikunitz/xz"
)

// Download is a file from an address.
type Download struct {
	io.ReadCloser
	// Modified is when the file changed, as its server says; the zero time where it does not.
	Modified time.Time
}

// doAdd copies as COPY does, unpacks archives of the context, and fetches addresses.
func (s *stage) doAdd(ctx context.Context, c *instructions.AddCommand) error {
	owner, err := s.ownership(c.Chown, c.Chmod)
	if err != nil {
		return err
	}
	items := newItems(s, owner)
	if err := items.exclude(c.ExcludePatterns); err != nil {
		return err
	}
	copied := c.SourcesAndDest
	copied.SourcePaths = nil
	for _, source := range c.SourcePaths {
		if isAddress(source) {
			err = s.addAddress(ctx, items, source, c)
		} else {
			err = s.addSource(items, source, c, &copied)
		}
		if err != nil {
			return err
		}
	}
	if len(copied.SourcePaths)+len(copied.SourceContents) > 0 {
		if err := items.copy(s.run.context, copied); err != nil {
			return err
		}
	}
	return s.write(ctx, c, items)
}

// addSource unpacks the archives among a source's files, and leaves the rest to be copied.
func (s *stage) addSource(items *items, source string, c *instructions.AddCommand, copied *instructions.SourcesAndDest) error {
	names, err := s.run.context.match(source)
	if err != nil {
		return err
	}
	for _, name := range names {
		is := c.Unpack == nil || *c.Unpack
		if is {
			if is, err = s.run.context.isArchive(name); err != nil {
				return err
			}
		}
		if !is {
			copied.SourcePaths = append(copied.SourcePaths, literal(name))
			continue
		}
		dest, err := s.destination(c.DestPath, true)
		if err != nil {
			return err
		}
		if err := items.unpack(s.run.context, name, dest); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	return nil
}

// literal is a pattern that matches the name alone.
func literal(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

func isAddress(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

// addAddress takes in a file from an address. It is not unpacked.
func (s *stage) addAddress(ctx context.Context, items *items, address string, c *instructions.AddCommand) error {
	if s.run.builder.Fetch == nil {
		return fmt.Errorf("%s: this node fetches nothing for ADD: use RUN with curl or wget", address)
	}
	parsed, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	dest, err := s.destination(c.DestPath, false)
	if err != nil {
		return err
	}
	to := dest.path
	if dest.dir {
		name := path.Base(parsed.Path)
		if name == "/" || name == "." {
			return fmt.Errorf("%s: its path names no file, so %s must", address, c.DestPath)
		}
		to = path.Join(to, name)
	}
	at, modified, err := s.run.fetch(ctx, address)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", address, err)
	}
	if c.Checksum != "" {
		digest, err := hashFile(at)
		if err != nil {
			return err
		}
		if "sha256:"+digest != c.Checksum {
			return fmt.Errorf("%s has the digest sha256:%s, not %s", address, digest, c.Checksum)
		}
	}
	info, err := os.Stat(at)
	if err != nil {
		return err
	}
	if err := items.parents(to); err != nil {
		return err
	}
	header := &tar.Header{Name: to, Typeflag: tar.TypeReg, Mode: 0o600, Size: info.Size(), ModTime: modified, Format: tar.FormatPAX}
	items.owner.apply(header)
	items.insert(&item{name: to, at: at, header: header})
	return nil
}

// fetch downloads to a file of the build's.
func (r *run) fetch(ctx context.Context, address string) (at string, modified time.Time, err error) {
	dir, err := r.scratch.dir(r.builder)
	if err != nil {
		return "", modified, err
	}
	from, err := r.builder.Fetch(ctx, address)
	if err != nil {
		return "", modified, err
	}
	defer func() { _ = from.Close() }() // read only
	file, err := os.Create(filepath.Join(dir, "download"))
	if err != nil {
		return "", modified, err
	}
	_, err = io.Copy(file, from)
	return file.Name(), from.Modified, errors.Join(err, file.Close())
}

// isArchive tells whether a file is a tar archive, compressed or not.
func (t *tree) isArchive(name string) (bool, error) {
	at, err := t.resolve(name)
	if err != nil {
		return false, err
	}
	info, err := os.Stat(at)
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	file, err := os.Open(at)
	if err != nil {
		return false, err
	}
	defer func() { _ = file.Close() }() // read only
	plain, err := decompress(file)
	if err != nil {
		return false, nil // no archive, then
	}
	_, err = tar.NewReader(plain).Next()
	return err == nil, nil
}

// decompress tells by the first bytes how a file is compressed.
func decompress(in io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(in, 1<<16)
	head, err := buffered.Peek(6)
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1))
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2.NewReader(buffered), nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xz.NewReader(buffered)
	}
	return buffered, nil
}

// unpack takes in what is in an archive. Its files' contents lie in the build's own directory until they are written.
func (i *items) unpack(from *tree, name string, dest place) error {
	at, err := from.resolve(name)
	if err != nil {
		return err
	}
	file, err := os.Open(at)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // read only
	plain, err := decompress(file)
	if err != nil {
		return err
	}
	dir, err := i.stage.run.scratch.dir(i.stage.run.builder)
	if err != nil {
		return err
	}
	if err := i.parents(dest.path + "/."); err != nil {
		return err
	}
	reader := tar.NewReader(plain)
	for number := 0; ; number++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := i.unpackEntry(header, reader, dest, filepath.Join(dir, fmt.Sprint(number))); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

func (i *items) unpackEntry(header *tar.Header, content io.Reader, dest place, at string) error {
	if !filepath.IsLocal(strings.TrimLeft(header.Name, "/")) && clean(header.Name) != "." {
		return errors.New("it leads out of the archive")
	}
	rel := clean(header.Name)
	if rel == "." {
		return nil
	}
	to := path.Join(dest.path, rel)
	if header.Typeflag == tar.TypeLink {
		header.Linkname = path.Join(dest.path, clean(header.Linkname))
	}
	header.Name, header.Uname, header.Gname, header.Format = to, "", "", tar.FormatPAX
	i.owner.own(header)
	one := &item{name: to, header: header}
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		header.Typeflag, one.at = tar.TypeReg, at
		file, err := os.Create(at)
		if err != nil {
			return err
		}
		if _, err := io.Copy(file, content); err != nil { //nolint:gosec // the disk of the node's builds bounds it
			return errors.Join(err, file.Close())
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	if err := i.parents(to); err != nil {
		return err
	}
	i.insert(one)
	return nil
}

// layOut writes the file below a directory of the host's, for a step to read.
func (one *item) layOut(dir string) error {
	at := filepath.Join(dir, one.name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	switch one.header.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(at, one.header.FileInfo().Mode().Perm()|0o700)
	case tar.TypeSymlink:
		return os.Symlink(one.header.Linkname, at)
	case tar.TypeLink:
		return os.Link(filepath.Join(dir, one.header.Linkname), at) //nolint:gosec // names were made within the tree
	case tar.TypeReg:
		in, err := os.Open(one.at)
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }() // read only
		out, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, one.header.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	}
	return nil // devices and the like are for no step to read
}
