package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Names in a layer's directory.
const (
	layerRoot = "fs"
	layerFile = "layer.json"
	// layerSafe is there when the layer is known to be on the disk.
	layerSafe = "safe"
)

// maxWindow bounds the memory that a layer's compression may ask for.
const maxWindow = 128 << 20

// unpacked is what the store knows of a layer that lies in it.
type unpacked struct {
	// Bytes is the disk that it takes, about.
	Bytes int64 `json:"bytes"`
	// Implied are the directories that the layer has entries below, but none for themselves.
	Implied []string `json:"implied,omitempty"`
	// Boot names the run of the kernel in which it was unpacked.
	Boot string `json:"boot"`
}

// layerStore is the directory of unpacked layers.
type layerStore struct {
	dir, trash string
	locks      locks
	// boot names this run of the kernel.
	boot string
	// most is how many bytes a layer may take.
	most int64
}

func (s *layerStore) path(diffID string) string { return filepath.Join(s.dir, diffID) }

// has tells whether the layer is there and whole. Until it is known to be on the disk it counts only as long as the
// kernel runs that has it in memory: a power cut may have emptied its files.
func (s *layerStore) has(diffID string) bool {
	if _, err := os.Lstat(filepath.Join(s.path(diffID), layerSafe)); err == nil {
		return true
	}
	var meta unpacked
	return readJSON(filepath.Join(s.path(diffID), layerFile), &meta) && meta.Boot == s.boot
}

// make unpacks the layer beside its place and moves it there when it is whole and verified. The caller holds the layer's
// lock and found none.
func (s *layerStore) make(ctx context.Context, l layer, in io.Reader) (err error) {
	dir := filepath.Join(s.dir, partPrefix+l.DiffID)
	if err := os.RemoveAll(dir); err != nil { // of one that was killed at it
		return fmt.Errorf("clear layer: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	root := filepath.Join(dir, layerRoot)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("make layer: %w", err)
	}
	meta, err := s.fill(ctx, root, l, in)
	if err != nil {
		return err
	}
	meta.Boot = s.boot
	if err := writeJSON(filepath.Join(dir, layerFile), meta); err != nil {
		return err
	}
	if err := os.RemoveAll(s.path(l.DiffID)); err != nil { // of before a power cut
		return fmt.Errorf("clear layer: %w", err)
	}
	if err := os.Rename(dir, s.path(l.DiffID)); err != nil {
		return fmt.Errorf("make layer: %w", err)
	}
	return nil
}

// secure brings new layers to the disk, all in one go, and marks them: no start waits for that.
func (s *layerStore) secure() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	var fresh []string
	for _, entry := range entries {
		mark := filepath.Join(s.dir, entry.Name(), layerSafe)
		if _, err := os.Lstat(mark); err != nil && s.has(entry.Name()) {
			fresh = append(fresh, mark)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("flush layers: %w", err)
	}
	defer func() { _ = dir.Close() }() // read only
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("flush layers: %w", err)
	}
	for _, mark := range fresh {
		if err := os.WriteFile(mark, nil, 0o600); err != nil && !errors.Is(err, os.ErrNotExist) { // collected since
			return fmt.Errorf("mark layer: %w", err)
		}
	}
	return nil
}

// fill unpacks the stream into root, and fails unless both the bytes that came and what they unpack to are those named.
func (s *layerStore) fill(ctx context.Context, root string, l layer, in io.Reader) (unpacked, error) {
	came := &summed{in: in, sum: sha256.New()}
	meta, err := s.unpackSummed(ctx, root, l, came)
	if errors.Is(err, errRefused) || errors.Is(err, unix.ENOSPC) || ctx.Err() != nil {
		return meta, err
	}
	// What was wrong on the way here explains what could not be unpacked.
	if _, err := io.Copy(io.Discard, came); err != nil {
		return meta, fmt.Errorf("fetch layer: %w", err)
	}
	if l.Digest != "" && came.digest() != l.Digest {
		return meta, fmt.Errorf("%w: layer sha256:%s came with the digest sha256:%s", errRefused, l.Digest, came.digest())
	}
	return meta, err
}

func (s *layerStore) unpackSummed(ctx context.Context, root string, l layer, came io.Reader) (unpacked, error) {
	plain, err := decompress(came)
	if err != nil {
		return unpacked{}, err
	}
	defer func() { _ = plain.Close() }() // read only
	stream := &summed{in: plain, sum: sha256.New(), ctx: ctx, most: s.most}
	meta, err := unpack(root, stream, s.most)
	if err != nil {
		return meta, fmt.Errorf("unpack layer sha256:%s: %w", l.DiffID, err)
	}
	if _, err := io.Copy(io.Discard, stream); err != nil { // the digest is also of what follows the last entry
		return meta, fmt.Errorf("unpack layer sha256:%s: %w", l.DiffID, err)
	}
	if stream.digest() != l.DiffID {
		return meta, fmt.Errorf("%w: layer sha256:%s unpacks to one with the digest sha256:%s", errRefused, l.DiffID, stream.digest())
	}
	return meta, nil
}

// decompress tells by the first bytes how a layer is compressed.
func decompress(in io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(in, 1<<20)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("fetch layer: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("decompress layer: %w", err)
		}
		return plain, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		plain, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("decompress layer: %w", err)
		}
		return plain.IOReadCloser(), nil
	}
	return io.NopCloser(buffered), nil
}

// summed hashes what is read through it. With a context it ends when that does, with most it refuses to pass more bytes.
type summed struct {
	in   io.Reader
	sum  hash.Hash
	ctx  context.Context //nolint:containedctx // a reader has no other way to be told
	most int64
	read int64
}

func (s *summed) Read(p []byte) (int, error) {
	if s.ctx != nil && s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	n, err := s.in.Read(p)
	_, _ = s.sum.Write(p[:n]) // never fails: hash.Hash
	s.read += int64(n)
	if s.most > 0 && s.read > s.most {
		return n, fmt.Errorf("%w: the layer takes more than the %d bytes that images.max_bytes allows", errRefused, s.most)
	}
	return n, err
}

func (s *summed) digest() string { return hex.EncodeToString(s.sum.Sum(nil)) }
