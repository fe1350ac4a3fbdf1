package blobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// payloadsFolder of the bucket holds what is too large for a call's messages.
const payloadsFolder = "payloads"

// Payloads are the inputs and outputs of calls that are too large for a message, under names of their makers' choice.
type Payloads struct{ objects *Objects }

// Payloads are those of the bucket.
func (s *Store) Payloads() *Payloads { return &Payloads{s.Objects(payloadsFolder)} }

// Written is what was stored.
type Written struct {
	Size int64
	// Sum is its SHA-256, in hexadecimal.
	Sum string
}

// ErrTooLong says that more came than was allowed. Nothing was stored.
var ErrTooLong = errors.New("longer than allowed")

// Put stores what it reads until the end, at most so many bytes, in little memory. When reading or storing fails, or the context ends
// first, nothing is stored.
func (p *Payloads) Put(ctx context.Context, name string, in io.Reader, most int64) (Written, error) {
	key, err := p.objects.name(name)
	if err != nil {
		return Written{}, err
	}
	ctx, abandon := context.WithCancel(ctx)
	defer abandon() // before Close, this makes the bucket keep nothing
	out, err := p.objects.bucket.NewWriter(ctx, key, &blob.WriterOptions{
		ContentType: "application/octet-stream", DisableContentTypeDetection: true, MaxConcurrency: 1,
	})
	if err != nil {
		return Written{}, fmt.Errorf("store payload %s: %w", name, err)
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(in, most+1))
	if err == nil && size > most {
		err = ErrTooLong
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		abandon()
		_ = out.Close() // says that it was abandoned
		return Written{}, fmt.Errorf("store payload %s: %w", name, err)
	}
	if err := out.Close(); err != nil {
		return Written{}, fmt.Errorf("store payload %s: %w", name, err)
	}
	return Written{Size: size, Sum: hex.EncodeToString(sum.Sum(nil))}, nil
}

// Open reads a payload. ErrNotFound says that it is not there, ErrDigest that it is not what was stored: of another size, or, after
// reading to the end, of another content; the last bytes are then withheld. Close it.
func (p *Payloads) Open(ctx context.Context, name string, want Written) (*PayloadReader, error) {
	in, err := p.reader(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	if in.Size() != want.Size {
		_ = in.Close() // read only
		return nil, fmt.Errorf("open payload %s: %w: it has %d bytes, not %d", name, ErrDigest, in.Size(), want.Size)
	}
	return &PayloadReader{in: in, sum: sha256.New(), name: name, want: want}, nil
}

// OpenRange reads a part of a payload, whose content is not checked. Errors as Open; io.EOF is not reached before length bytes.
func (p *Payloads) OpenRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	in, err := p.reader(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	return in, nil
}

func (p *Payloads) reader(ctx context.Context, name string, offset, length int64) (*blob.Reader, error) {
	key, err := p.objects.name(name)
	if err != nil {
		return nil, err
	}
	in, err := p.objects.bucket.NewRangeReader(ctx, key, offset, length, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("open payload %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open payload %s: %w", name, err)
	}
	return in, nil
}

// Mark stores an object without content.
func (p *Payloads) Mark(ctx context.Context, name string) error { return p.objects.Put(ctx, name, nil) }

// Has tells whether a payload is there.
func (p *Payloads) Has(ctx context.Context, name string) (bool, error) {
	return p.objects.Has(ctx, name)
}

// Delete removes a payload; one that is not there is no error.
func (p *Payloads) Delete(ctx context.Context, name string) error { return p.objects.Delete(ctx, name) }

// List calls do for each payload whose name begins so, in the order of their names, until it fails. What broken uploads left is among
// them, under names of the bucket's own.
func (p *Payloads) List(ctx context.Context, prefix string, do func(Object) error) error {
	return p.objects.list(ctx, prefix, do)
}

// Remove deletes an object that List named, whatever its name.
func (p *Payloads) Remove(ctx context.Context, object Object) error {
	err := p.objects.bucket.Delete(ctx, p.objects.folder+object.Name)
	if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("delete payload %s: %w", object.Name, err)
	}
	return nil
}

// PayloadReader reads a payload and checks it on the way.
type PayloadReader struct {
	in   *blob.Reader
	sum  hash.Hash
	name string
	want Written
	read int64
	// failed is the error of the last Read, io.EOF apart.
	failed error
}

// Size is the payload's size in bytes.
func (r *PayloadReader) Size() int64 { return r.want.Size }

// Modified is when it was stored.
func (r *PayloadReader) Modified() time.Time { return r.in.ModTime() }

// Failed is why reading ended early; nil when it did not.
func (r *PayloadReader) Failed() error { return r.failed }

// Read implements io.Reader. Of a payload with another content than was stored the last bytes are withheld, for ErrDigest.
func (r *PayloadReader) Read(p []byte) (int, error) {
	n, err := r.next(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.failed = err
	}
	return n, err
}

func (r *PayloadReader) next(p []byte) (int, error) {
	if r.read == r.want.Size {
		return 0, io.EOF
	}
	n, err := r.in.Read(p[:min(int64(len(p)), r.want.Size-r.read)])
	_, _ = r.sum.Write(p[:n]) // never fails: hash.Hash
	r.read += int64(n)
	switch {
	case r.read == r.want.Size:
		if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.want.Sum {
			return 0, fmt.Errorf("read payload %s: %w: the bytes have %s", r.name, ErrDigest, got)
		}
		return n, nil
	case errors.Is(err, io.EOF):
		return n, fmt.Errorf("read payload %s: %w: it ends after %d bytes of %d", r.name, ErrDigest, r.read, r.want.Size)
	case err != nil:
		return n, fmt.Errorf("read payload %s: %w", r.name, err)
	}
	return n, nil
}

// Close closes the payload.
func (r *PayloadReader) Close() error { return r.in.Close() }
