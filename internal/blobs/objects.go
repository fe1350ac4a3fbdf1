package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// ErrName says that no object may have this name.
var ErrName = errors.New("wrong object name")

// Objects are small things under names of the caller's choice, beside the blobs named by digest. Unlike those they can be
// replaced, and nobody checks what is read: the caller's encoding must.
type Objects struct {
	bucket *blob.Bucket
	folder string
}

// Objects are those below a folder of the bucket.
func (s *Store) Objects(folder string) *Objects {
	return &Objects{bucket: s.bucket, folder: folder + "/"}
}

// Object is what a listing says of one.
type Object struct {
	// Name is its name below the folder.
	Name string
	// Bytes is its size.
	Bytes    int64
	Modified time.Time
}

// name checks a name: slashes make folders, and nothing leads out of them.
func (o *Objects) name(name string) (string, error) {
	if !regexp.MustCompile(`^[A-Za-z0-9_~-]+(?:[./][A-Za-z0-9_~-]+)*$`).MatchString(name) {
		return "", fmt.Errorf("%w: %q: use letters, digits, '_', '-' and '~', with single dots and slashes between", ErrName, name)
	}
	return o.folder + name, nil
}

// Put stores or replaces an object.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	key, err := o.name(name)
	if err != nil {
		return err
	}
	if err := o.bucket.WriteAll(ctx, key, data, &blob.WriterOptions{ContentType: "application/octet-stream"}); err != nil {
		return fmt.Errorf("store object %s: %w", name, err)
	}
	return nil
}

// Get reads an object of at most so many bytes; ErrNotFound when it is not there.
func (o *Objects) Get(ctx context.Context, name string, most int64) ([]byte, error) {
	key, err := o.name(name)
	if err != nil {
		return nil, err
	}
	in, err := o.bucket.NewReader(ctx, key, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("read object %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", name, err)
	}
	defer func() { _ = in.Close() }() // read only
	if in.Size() > most {
		return nil, fmt.Errorf("read object %s: it has %d bytes, more than %d", name, in.Size(), most)
	}
	data := make([]byte, in.Size())
	if _, err := io.ReadFull(in, data); err != nil {
		return nil, fmt.Errorf("read object %s: %w", name, err)
	}
	return data, nil
}

// Has tells whether an object is there.
func (o *Objects) Has(ctx context.Context, name string) (bool, error) {
	key, err := o.name(name)
	if err != nil {
		return false, err
	}
	there, err := o.bucket.Exists(ctx, key)
	if err != nil {
		return false, fmt.Errorf("look for object %s: %w", name, err)
	}
	return there, nil
}

// Delete removes an object; one that is not there is no error.
func (o *Objects) Delete(ctx context.Context, name string) error {
	key, err := o.name(name)
	if err != nil {
		return err
	}
	if err := o.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	return nil
}

// List calls do for each object in the order of their names, until it fails.
func (o *Objects) List(ctx context.Context, do func(Object) error) error { return o.list(ctx, "", do) }

func (o *Objects) list(ctx context.Context, prefix string, do func(Object) error) error {
	list := o.bucket.List(&blob.ListOptions{Prefix: o.folder + prefix})
	for {
		entry, err := list.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list objects: %w", err)
		}
		if err := do(Object{Name: entry.Key[len(o.folder):], Bytes: entry.Size, Modified: entry.ModTime}); err != nil {
			return err
		}
	}
}
