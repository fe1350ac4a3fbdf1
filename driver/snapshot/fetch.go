package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-dev/freshet/internal/blobs"
)

const (
	// fetchers is how many chunks are fetched at once; each takes some 12 MB meanwhile.
	fetchers = 4
	// awaitLong is more than any fetch may take: its own limit ends it.
	awaitLong = time.Hour
	// judgeAfter is how many chunks are fetched before the rate is believed.
	judgeAfter = 8
)

// ErrSlow says that fetching would take longer than the cold start that it saves.
var ErrSlow = errors.New("fetching the snapshot is slower than a cold start")

// Fetch brings a snapshot that another node pushed into this node's store and begins to use it. One process of the node
// fetches it; others wait for that one. It gives up after the limit (context.DeadlineExceeded), or ErrSlow as soon as it is
// plain that the cold start which the snapshot saves would be sooner done. ErrNotFound when nobody pushed it, ErrBusy when this
// node makes it meanwhile, ErrDamaged when what is there was changed, is not whole, or fits another node only: that is removed,
// so that a good one can be pushed. After any error a cold start is right.
func (r *Remote) Fetch(ctx context.Context, store *Store, key string, limit time.Duration) (*Use, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found, err := r.find(ctx, key, store.cpu)
	if err != nil {
		return nil, err
	}
	defer found.sealer.close()
	making, use, err := store.makeOrAwait(ctx, key)
	if making == nil {
		return use, err
	}
	defer making.Abort()
	f := &fetch{remote: r, pushed: found, dir: making.Dir, began: time.Now()}
	if err := f.files(ctx); err != nil {
		if errors.Is(err, ErrDamaged) {
			err = errors.Join(err, r.objects.Delete(ctx, head(found.sealer.name)))
		}
		return nil, fmt.Errorf("fetch snapshot: %w", err)
	}
	if err := making.commit(found.manifest); err != nil {
		return nil, err
	}
	making.Abort() // lets go of the lock; what is committed stays
	if err := r.noteUse(ctx, found.sealer.name); err != nil {
		return nil, err
	}
	return store.Lookup(ctx, key)
}

// makeOrAwait begins a snapshot, or uses the one that another process was at.
func (s *Store) makeOrAwait(ctx context.Context, key string) (*Making, *Use, error) {
	again := time.NewTicker(awaitStep)
	defer again.Stop()
	for {
		making, err := s.Make(key)
		if !errors.Is(err, ErrBusy) {
			return making, nil, err
		}
		use, err := s.Await(ctx, key, awaitLong)
		if !errors.Is(err, ErrNotFound) {
			return nil, use, err
		}
		select { // it is not yet, or no longer, being made
		case <-again.C:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// noteUse keeps the snapshot from being collected as one that nobody fetches.
func (r *Remote) noteUse(ctx context.Context, name string) error {
	return r.objects.Put(ctx, used(name), nil)
}

// fetch is one under way.
type fetch struct {
	remote *Remote
	pushed *pushed
	dir    string
	began  time.Time
	done   atomic.Int64 // chunks
}

func (f *fetch) files(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	for name, file := range f.pushed.manifest.Files {
		out, err := os.OpenFile(filepath.Join(f.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		defer func() { _ = out.Close() }() // each write was checked, and sums tell of what the disk loses
		for index := range file.Sums {
			group.Go(func() error { return f.chunk(ctx, out, name, file.Size, index) })
		}
	}
	return group.Wait()
}

// chunk fetches one, into its place.
func (f *fetch) chunk(ctx context.Context, out *os.File, name string, size int64, index int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	part := f.pushed.sealer.part(name, index)
	sealed, err := f.remote.objects.Get(ctx, part, sealedChunk)
	if errors.Is(err, blobs.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	data, err := f.pushed.sealer.open(part, sealed)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	offset := int64(index) * chunkSize
	if want := min(chunkSize, size-offset); int64(len(data)) != want {
		return fmt.Errorf("%w: %s has %d bytes, want %d", ErrDamaged, part, len(data), want)
	}
	if _, err := out.WriteAt(data, offset); err != nil {
		return err
	}
	return f.judge()
}

// judge compares how long the whole will take with the cold start.
func (f *fetch) judge() error {
	done, cold := f.done.Add(1), time.Duration(f.pushed.manifest.LoadMS)*time.Millisecond
	if done < judgeAfter || cold == 0 {
		return nil
	}
	var all int64
	for _, file := range f.pushed.manifest.Files {
		all += chunks(file.Size)
	}
	elapsed := time.Since(f.began)
	if left := time.Duration(float64(elapsed) * float64(all-done) / float64(done)); left > cold {
		return fmt.Errorf("%w: %s are left, a cold start took %s", ErrSlow, left.Round(time.Millisecond), cold)
	}
	return nil
}
