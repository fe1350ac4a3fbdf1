package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/internal/local"
)

const (
	restoreMB     = 1024
	restoreRounds = 5
)

// restores measures what it takes to thaw 1 GiB of random memory, from finding the snapshot to the guest's answer, against
// reading its pages once into fresh memory: from the page cache, and from the disk.
func restores(ctx context.Context, s *system, _ *floors, r *report) (err error) {
	bed, err := newTestbed(ctx, filepath.Join(s.work, "restore"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.remove()) }()
	for _, place := range []struct {
		name string
		drop bool
	}{{"restore_1g_cached", false}, {"restore_1g_disk", true}} {
		var floor, thaw samples
		for range restoreRounds {
			read, err := bed.read(place.drop)
			if err != nil {
				return err
			}
			took, err := bed.thaw(ctx, place.drop)
			if err != nil {
				return err
			}
			floor, thaw = append(floor, read), append(thaw, took)
		}
		r.add(times(place.name, thaw, floor.at(0.5)))
	}
	return nil
}

// testbed is a node's store with one snapshot, and a root for its guest.
type testbed struct {
	dir    string
	store  *snapshot.Store
	key    string
	frozen string // the snapshot's directory
	made   int    // sandboxes
}

func newTestbed(ctx context.Context, dir string) (*testbed, error) {
	b := &testbed{dir: dir}
	for _, sub := range []string{"proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", sub), 0o755); err != nil {
			return nil, err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "rootfs", "guest"), "./driver/snapshot/testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build guest: %w: %s", err, out)
	}
	var err error
	if b.store, err = snapshot.Open(filepath.Join(dir, "store"), 0); err != nil {
		return nil, err
	}
	return b, b.freeze()
}

func (b *testbed) create() (*sandbox.Sandbox, error) {
	b.made++
	id := "restore-" + strconv.Itoa(b.made)
	return sandbox.Create(sandbox.Config{
		ID: id, Runsc: os.Getenv("FRESHET_RUNSC"), StateDir: filepath.Join(b.dir, id), SharedDir: filepath.Join(b.dir, "shared"),
		Rootfs: filepath.Join(b.dir, "rootfs"), Args: []string{"/guest"},
	}, zerolog.Nop())
}

func (b *testbed) freeze() (err error) {
	box, err := b.create()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Destroy()) }()
	if err := box.Start(); err != nil {
		return err
	}
	if err := answer(box, fmt.Sprintf("fill %d", restoreMB)); err != nil {
		return err
	}
	cpu, err := snapshot.CPUDigest()
	if err != nil {
		return err
	}
	inputs := snapshot.Inputs{App: "bench", CPU: cpu}
	if b.key, err = inputs.Key(); err != nil {
		return err
	}
	making, err := b.store.Make(b.key)
	if err != nil {
		return err
	}
	defer making.Abort()
	if err := box.Checkpoint(making.Dir); err != nil {
		return err
	}
	b.frozen = filepath.Join(b.dir, "store", b.key)
	return making.Commit(inputs)
}

// answer has the guest answer a line.
func answer(box *sandbox.Sandbox, line string) error {
	if _, err := box.Stdin.WriteString(line + "\n"); err != nil {
		return err
	}
	_, err := bufio.NewReader(box.Stdout).ReadString('\n')
	return err
}

// drop takes the snapshot out of the page cache.
func (b *testbed) drop() error {
	entries, err := os.ReadDir(b.frozen)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		file, err := os.Open(filepath.Join(b.frozen, entry.Name()))
		if err != nil {
			return err
		}
		err = errors.Join(file.Sync(), unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED), file.Close())
		if err != nil {
			return fmt.Errorf("drop %s from the page cache: %w", entry.Name(), err)
		}
	}
	return nil
}

// read reads the pages once into fresh memory.
func (b *testbed) read(drop bool) (took time.Duration, err error) {
	if drop {
		if err := b.drop(); err != nil {
			return 0, err
		}
	}
	file, err := os.Open(filepath.Join(b.frozen, sandbox.PagesFile))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	memory, err := unix.Mmap(-1, 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, fmt.Errorf("map memory: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(memory)) }()
	_, err = io.ReadFull(file, memory)
	return time.Since(began), err
}

// thaw does what a worker does with a snapshot, up to the guest's first answer.
func (b *testbed) thaw(ctx context.Context, drop bool) (took time.Duration, err error) {
	if drop {
		if err := b.drop(); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	use, err := b.store.Lookup(ctx, b.key)
	if err != nil {
		return 0, err
	}
	defer use.Release()
	check := use.Verify(ctx)
	box, err := b.create()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, box.Destroy()) }()
	if err := box.Restore(use.Dir); err != nil {
		return 0, err
	}
	if err := check.Wait(); err != nil {
		return 0, err
	}
	if err := answer(box, "hello"); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

func (b *testbed) remove() error {
	return errors.Join(local.UnmountUnder(b.dir), os.RemoveAll(b.dir))
}
