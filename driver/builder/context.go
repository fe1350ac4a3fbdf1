package builder

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Limits of what a context unpacks to.
const (
	maxContextBytes = 10 << 30
	maxContextFiles = 500_000
)

// readDockerfile reads the Dockerfile of a context. It follows no link out of it.
func readDockerfile(dir, name string) ([]byte, error) {
	file, err := os.OpenInRoot(dir, filepath.FromSlash(name))
	if err != nil {
		return nil, spec.FieldError{Field: "build.file", Value: name, Mend: "name a file of the context, or write its text in build.dockerfile: " + err.Error()}
	}
	defer func() { _ = file.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(file, spec.MaxDockerfileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > spec.MaxDockerfileBytes {
		return nil, spec.FieldError{Field: "build.file", Value: name, Mend: fmt.Sprintf("a Dockerfile has at most %d bytes", spec.MaxDockerfileBytes)}
	}
	return data, nil
}

// unpack fetches a context from the blob store: a tar stream, compressed with gzip or not.
func (b *builder) unpack(ctx context.Context, digest, dir string) error {
	in, err := b.blobs.Open(ctx, digest)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // a directory
	whole := bufio.NewReaderSize(in, 1<<20)
	var plain io.Reader = whole
	if magic, _ := whole.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		if plain, err = gzip.NewReader(whole); err != nil {
			return err
		}
	}
	if err := unpackTar(ctx, root, tar.NewReader(plain)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, whole) // to its end, where the blob's digest is compared
	return err
}

func unpackTar(ctx context.Context, root *os.Root, archive *tar.Reader) error {
	left, files := int64(maxContextBytes), 0
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		files++
		left -= header.Size
		if files > maxContextFiles || left < 0 {
			return fmt.Errorf("it has more than %d files or %d MB: list what is not needed in .dockerignore", maxContextFiles, maxContextBytes>>20)
		}
		if err := unpackEntry(root, header, archive); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

// unpackEntry writes one entry with its mode and time. The root refuses names, and links on the way, that lead out of it.
func unpackEntry(root *os.Root, header *tar.Header, in io.Reader) error {
	name := filepath.Clean(header.Name)
	mode := header.FileInfo().Mode()
	if name == "." {
		return nil
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
	case tar.TypeReg:
		out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in) //nolint:gosec // its size was counted
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
	default:
		return errors.New("it is neither a file nor a directory nor a link")
	}
	return errors.Join(root.Chmod(name, mode), root.Chtimes(name, header.ModTime, header.ModTime))
}
