package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/freshet-dev/freshet/sdk/python"
)

// Limits of what a bundle unpacks to: it is code, shipped with each change. Large files belong into the image.
const (
	MaxBundleBytes = 512 << 20
	MaxBundleFiles = 50_000
)

// ForBundle unpacks a bundle, which is a tar of files and directories, compressed with gzip or not: code is "sha256:<hex>" of a blob, or
// an absolute path on the node. Modes and times in the archive do not count, so that the same files are the same on every node.
func (c *Cache) ForBundle(ctx context.Context, code string) (Root, error) {
	return c.root(ctx, code, content{prefix: "bundle-", write: unpackBundle})
}

func unpackBundle(dir string, in io.Reader) error {
	whole := bufio.NewReader(in)
	unpacked, err := decompressed(whole)
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	archive := tar.NewReader(unpacked)
	left, files := int64(MaxBundleBytes), 0
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read bundle: %w: make it with tar, or by freshet deploy", err)
		}
		if files++; files > MaxBundleFiles {
			return fmt.Errorf("unpack bundle: it has more than %d files: move what is no code into the image", MaxBundleFiles)
		}
		if left -= header.Size; left < 0 {
			return fmt.Errorf("unpack bundle: it takes more than %d MB: move what is no code into the image", MaxBundleBytes>>20)
		}
		if err := unpackFile(dir, header, archive); err != nil {
			return fmt.Errorf("unpack bundle: %w", err)
		}
	}
	if _, err := io.Copy(io.Discard, whole); err != nil { // to its end, where a blob's digest is compared
		return fmt.Errorf("read bundle: %w", err)
	}
	if err := python.Settle(dir); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	return nil
}

func decompressed(in *bufio.Reader) (io.Reader, error) {
	magic, err := in.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return in, nil
	}
	return gzip.NewReader(in)
}

// unpackFile writes one entry. A bundle has no links: nothing in it can lead out of it.
func unpackFile(dir string, header *tar.Header, in io.Reader) error {
	name := filepath.Clean(header.Name)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%w: entry %q leads out of it", errRefused, header.Name)
	}
	path := filepath.Join(dir, name)
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeDir:
		return os.MkdirAll(path, 0o755)
	case tar.TypeReg:
	default:
		return fmt.Errorf("%w: entry %q is neither a file nor a directory", errRefused, header.Name)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
