package snapshot

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
)

const (
	// readers is how many chunks are read at once. Reading them also brings the pages into memory ahead of the sentry, and two
	// keep a disk busy.
	readers = 2
	// readSize is how much is read at once: it stays in a processor's own cache while it is summed.
	readSize = 256 << 10
	// checkedFirst is the size up to which a file is checked before it is thawed at all: gVisor's own state, which is parsed.
	// Larger are the guest's pages, which are only copied and checked meanwhile.
	checkedFirst = 4 << 20
)

// check compares files with their sums in parallel. only says which.
func (m manifest) check(ctx context.Context, dir string, only func(file) bool) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for name, want := range m.Files {
		if !only(want) {
			continue
		}
		in, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return errors.Join(fmt.Errorf("verify snapshot: %w", err), group.Wait())
		}
		defer func() { _ = in.Close() }() // read only
		for index, sum := range want.Sums {
			group.Go(func() error { return checkChunk(ctx, in, name, want.Size, index, sum) })
		}
	}
	return group.Wait()
}

func checkChunk(ctx context.Context, in io.ReaderAt, name string, size int64, index int, want uint32) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	offset := int64(index) * chunkSize
	got, err := sumChunk(in, offset, min(chunkSize, size-offset))
	if err != nil {
		return fmt.Errorf("verify snapshot: read %s: %w", name, err)
	}
	if got != want {
		return fmt.Errorf("verify snapshot: %s is damaged between bytes %d and %d", name, offset, min(offset+chunkSize, size))
	}
	return nil
}

func sumChunk(in io.ReaderAt, offset, size int64) (uint32, error) {
	sum := crc32.New(castagnoli())
	n, err := io.CopyBuffer(sum, onlyReader{io.NewSectionReader(in, offset, size)}, make([]byte, min(size, readSize)))
	if err != nil {
		return 0, err
	}
	if n != size {
		return 0, io.ErrUnexpectedEOF
	}
	return sum.Sum32(), nil
}

// onlyReader hides what else a reader can do, so that the buffer is used.
type onlyReader struct{ io.Reader }

// sumFiles reads all files of a directory and says their sizes and sums.
func sumFiles(dir string) (map[string]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshot: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(readers)
	files := make(map[string]file)
	for _, entry := range entries {
		in, err := os.Open(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("sum snapshot: %w", err), group.Wait())
		}
		defer func() { _ = in.Close() }() // read only
		info, err := in.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("sum snapshot: %w", err), group.Wait())
		}
		sums := make([]uint32, chunks(info.Size()))
		files[entry.Name()] = file{Size: info.Size(), Sums: sums}
		for index := range sums {
			group.Go(func() (err error) {
				offset := int64(index) * chunkSize
				sums[index], err = sumChunk(in, offset, min(chunkSize, info.Size()-offset))
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("sum snapshot: %w", err)
	}
	return files, nil
}

// Check is a verification that runs while the snapshot is being thawed.
type Check struct {
	done   sync.WaitGroup
	cancel context.CancelFunc
	err    error
}

// Verify begins to compare the guest's pages with their sums; the rest was compared by Lookup. It reads them through the page
// cache, ahead of the sentry that thaws them: what the disk gave is read once, and both see the same bytes. Wait before the
// guest is told to wake.
func (u *Use) Verify(ctx context.Context) *Check {
	ctx, cancel := context.WithCancel(ctx)
	c := &Check{cancel: cancel}
	c.done.Go(func() {
		err := u.manifest.check(ctx, u.Dir, func(f file) bool { return f.Size > checkedFirst })
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		c.err = err
	})
	u.checks = append(u.checks, c)
	return c
}

// Wait says how the verification ended: ErrDamaged when the guest must not wake.
func (c *Check) Wait() error {
	c.done.Wait()
	return c.err
}

// stop ends what still runs.
func (c *Check) stop() {
	c.cancel()
	c.done.Wait()
}
