package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/handoff"
)

const (
	// PushArg makes the worker's program push the snapshot of a task file and end.
	PushArg = "push"
	// fetchMemory is what a supervisor may use while it fetches; its guest is not there yet.
	fetchMemory = 96 << 20
	// lowest is the priority of a push: calls come first.
	lowest = 19
)

// find looks for the snapshot: on the node, where another worker is writing it, or where another node pushed it.
func (w *Worker) find(ctx context.Context, store *snapshot.Store) (*snapshot.Use, error) {
	use, err := store.Await(ctx, w.task.Snapshots.Key, makerTimeout)
	if w.task.Snapshots.Share == nil || !errors.Is(err, snapshot.ErrNotFound) {
		return use, err
	}
	usual := debug.SetMemoryLimit(fetchMemory)
	defer func() {
		debug.SetMemoryLimit(usual)
		debug.FreeOSMemory()
	}()
	use, err = fetch(ctx, store, *w.task.Snapshots)
	if err != nil && !errors.Is(err, snapshot.ErrNotFound) && !errors.Is(err, snapshot.ErrDamaged) {
		w.log.Warn().Err(err).Msg("fetch snapshot; starting cold")
	}
	return use, err
}

func fetch(ctx context.Context, store *snapshot.Store, task handoff.Snapshots) (use *snapshot.Use, err error) {
	bucket, remote, err := openRemote(ctx, *task.Share)
	if err != nil {
		return nil, err
	}
	use, err = remote.Fetch(ctx, store, task.Key, task.Share.FetchTimeout)
	return use, errors.Join(err, bucket.Close())
}

func openRemote(ctx context.Context, share handoff.Share) (*blobs.Store, *snapshot.Remote, error) {
	data, err := os.ReadFile(share.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read snapshot keys: %w", err)
	}
	keys, err := snapshot.ParseKeys(data)
	if err != nil {
		return nil, nil, err
	}
	bucket, err := blobs.Open(ctx, share.Blobs)
	if err != nil {
		return nil, nil, err
	}
	return bucket, snapshot.NewRemote(bucket, keys), nil
}

// Push pushes the task's snapshot to the cluster's store, if the node has one and nobody did, and collects what is too old or too
// much there.
func Push(ctx context.Context, task handoff.Task) (err error) {
	if task.Snapshots == nil || task.Snapshots.Share == nil {
		return errors.New("push snapshot: the task shares none")
	}
	store, err := snapshot.Open(task.Snapshots.Dir, task.Snapshots.MaxBytes)
	if err != nil {
		return err
	}
	share := *task.Snapshots.Share
	bucket, remote, err := openRemote(ctx, share)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	pushed, err := remote.Push(ctx, store, task.Snapshots.Key)
	if errors.Is(err, snapshot.ErrNotFound) || errors.Is(err, snapshot.ErrBusy) {
		return nil // it could not be frozen, or is collected already
	}
	if err != nil || !pushed {
		return err
	}
	_, err = remote.Collect(ctx, share.MaxBytes, share.MaxAge)
	return err
}

// push shares a worker's snapshot, in a process of its own: compressing would hold up the calls of this one.
type push struct {
	task handoff.Task
	log  zerolog.Logger
}

// start pushes in the background, if the task shares snapshots, until it is done or stopped.
func (p push) start(ctx context.Context) (stop func()) {
	if p.task.Snapshots == nil || p.task.Snapshots.Share == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.run(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn().Err(err).Msg("push snapshot; other nodes start cold")
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (p push) run(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", PushArg, filepath.Join(p.task.StateDir, handoff.TaskFile))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it takes away what it stored by half
	cmd.WaitDelay = freezeTimeout
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // the worker's log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start push: %w", err)
	}
	// Its threads take this from the first one, which made none yet. Where it fails, it is only less polite.
	_ = unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, lowest)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	return nil
}
