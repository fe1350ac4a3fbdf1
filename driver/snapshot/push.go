package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// cleanTimeout is how long what an abandoned push left may take to remove.
const cleanTimeout = 10 * time.Second

// Push seals the node's snapshot and stores it for other nodes, unless that is done already or another process is at it: then
// it says that it pushed nothing. It holds one chunk in memory at a time. ErrNotFound when the node has no such snapshot, ErrDamaged when it has a bad one.
func (r *Remote) Push(ctx context.Context, store *Store, key string) (did bool, err error) {
	lock, err := lockFile(store.path(key)+pushSuffix, unix.LOCK_EX)
	if errors.Is(err, ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	use, err := store.Lookup(ctx, key)
	if err != nil {
		return false, err
	}
	defer use.Release()
	s, err := newSealer(r.keys.list[0], key)
	if err != nil {
		return false, err
	}
	defer s.close()
	if there, err := r.objects.Has(ctx, head(s.name)); there || err != nil {
		return false, err
	}
	p := &push{remote: r, sealer: s, use: use}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.clean(ctx))
		}
	}()
	for name, file := range use.manifest.Files {
		if err := p.file(ctx, name, file); err != nil {
			return false, fmt.Errorf("push snapshot: %w", err)
		}
	}
	data, err := s.sealHead(use.manifest)
	if err != nil {
		return false, err
	}
	if err := r.objects.Put(ctx, head(s.name), data); err != nil {
		return false, fmt.Errorf("push snapshot: %w", err)
	}
	return true, nil
}

// push is one under way.
type push struct {
	remote *Remote
	sealer *sealer
	use    *Use
	parts  []string // that were stored
}

func (p *push) file(ctx context.Context, name string, file file) error {
	in, err := os.Open(filepath.Join(p.use.Dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	buffer := make([]byte, min(chunkSize, file.Size))
	for index, sum := range file.Sums {
		// What is damaged here must not become another node's.
		if err := checkChunk(ctx, in, name, file.Size, index, sum); err != nil {
			if ctx.Err() == nil {
				err = errors.Join(fmt.Errorf("%w: %w", ErrDamaged, err), p.use.Quarantine(err.Error()))
			}
			return err
		}
		offset := int64(index) * chunkSize
		data := buffer[:min(chunkSize, file.Size-offset)]
		if _, err := in.ReadAt(data, offset); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		part := p.sealer.part(name, index)
		p.parts = append(p.parts, part)
		if err := p.remote.objects.Put(ctx, part, p.sealer.seal(part, data)); err != nil {
			return err
		}
	}
	return nil
}

// clean removes what an abandoned push stored. What it cannot is collected later.
func (p *push) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	for _, part := range p.parts {
		if err := p.remote.objects.Delete(ctx, part); err != nil {
			return fmt.Errorf("remove what was pushed: %w", err)
		}
	}
	return nil
}
