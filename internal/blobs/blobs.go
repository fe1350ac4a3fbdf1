// Package blobs is the cluster's store of bytes named by their SHA-256 digest: programs, and what is too large for a message.
// It lives in any bucket that gocloud.dev/blob opens.
package blobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // opens file:// buckets
	"gocloud.dev/gcerrors"
)

// Errors that callers decide by.
var (
	// ErrNotFound: there is no blob with this digest.
	ErrNotFound = errors.New("no such blob")
	// ErrDigest: a digest that is none, or bytes that have another one than they should. Nothing was stored.
	ErrDigest = errors.New("wrong digest")
)

// Store is a bucket of blobs.
type Store struct{ bucket *blob.Bucket }

// Open opens the bucket at a URL such as file:///var/lib/freshet/blobs. Close it.
func Open(ctx context.Context, url string) (*Store, error) {
	bucket, err := blob.OpenBucket(ctx, besideItsFiles(url))
	if err != nil {
		return nil, fmt.Errorf("open blob store %s: %w", url, err)
	}
	return &Store{bucket: bucket}, nil
}

// besideItsFiles has a store of files write new ones in its own directory: from the system's temporary one they could not be moved
// there, where that is on another file system.
func besideItsFiles(url string) string {
	const option = "no_tmp_dir=true"
	switch {
	case !strings.HasPrefix(url, "file://"), strings.Contains(url, "no_tmp_dir="):
		return url
	case strings.Contains(url, "?"):
		return url + "&" + option
	}
	return url + "?" + option
}

// Close closes the bucket.
func (s *Store) Close() error {
	if err := s.bucket.Close(); err != nil {
		return fmt.Errorf("close blob store: %w", err)
	}
	return nil
}

func key(digest string) (string, error) {
	if len(digest) != hex.EncodedLen(sha256.Size) || strings.Trim(digest, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%w: %q: use 64 lower-case hex digits", ErrDigest, digest)
	}
	return "sha256/" + digest, nil
}

// Has tells whether the blob is there.
func (s *Store) Has(ctx context.Context, digest string) (bool, error) {
	name, err := key(digest)
	if err != nil {
		return false, err
	}
	there, err := s.bucket.Exists(ctx, name)
	if err != nil {
		return false, fmt.Errorf("look for blob %s: %w", digest, err)
	}
	return there, nil
}

// Put stores what it reads if it has the digest, ErrDigest otherwise.
func (s *Store) Put(ctx context.Context, digest string, in io.Reader) error {
	name, err := key(digest)
	if err != nil {
		return err
	}
	ctx, abandon := context.WithCancel(ctx)
	defer abandon() // before Close, this makes the bucket keep nothing
	out, err := s.bucket.NewWriter(ctx, name, &blob.WriterOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return fmt.Errorf("store blob %s: %w", digest, err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, sum), in)
	if err == nil {
		err = compare(digest, sum)
	}
	if err != nil {
		abandon()
		_ = out.Close() // says that it was abandoned
		return fmt.Errorf("store blob %s: %w", digest, err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("store blob %s: %w", digest, err)
	}
	return nil
}

// Delete removes a blob; one that is not there is no error. It is for the caller to know that nobody needs it.
func (s *Store) Delete(ctx context.Context, digest string) error {
	name, err := key(digest)
	if err != nil {
		return err
	}
	if err := s.bucket.Delete(ctx, name); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("delete blob %s: %w", digest, err)
	}
	return nil
}

func compare(digest string, sum hash.Hash) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
		return fmt.Errorf("%w: the bytes have %s", ErrDigest, got)
	}
	return nil
}

// Open reads a blob; ErrNotFound when it is not there. Reading to the end checks the digest (ErrDigest). Close it.
func (s *Store) Open(ctx context.Context, digest string) (*Reader, error) {
	name, err := key(digest)
	if err != nil {
		return nil, err
	}
	in, err := s.bucket.NewReader(ctx, name, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("open blob %s: %w", digest, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", digest, err)
	}
	return &Reader{in: in, sum: sha256.New(), digest: digest}, nil
}

// Reader reads a blob and checks it on the way.
type Reader struct {
	in     *blob.Reader
	sum    hash.Hash
	digest string
}

// Size is the blob's size in bytes.
func (r *Reader) Size() int64 { return r.in.Size() }

// Read implements io.Reader; in place of io.EOF it returns ErrDigest when the blob was damaged.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	_, _ = r.sum.Write(p[:n]) // never fails: hash.Hash
	if errors.Is(err, io.EOF) {
		if wrong := compare(r.digest, r.sum); wrong != nil {
			return n, fmt.Errorf("read blob %s: %w", r.digest, wrong)
		}
	}
	return n, err
}

// Close closes the blob.
func (r *Reader) Close() error { return r.in.Close() }
