package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultMaxBytes is how much disk snapshots may take unless the operator says otherwise.
const DefaultMaxBytes = 20 << 30

// Suffixes of what stands beside a snapshot's directory, which is named by its key.
const (
	partSuffix = ".part" // being made
	badSuffix  = ".bad"  // quarantined
	lockSuffix = ".lock"
	pushSuffix = ".push" // the lock of who pushes it
)

// Errors that callers decide by.
var (
	// ErrNotFound: there is no snapshot with this key; start cold.
	ErrNotFound = errors.New("no snapshot")
	// ErrBusy: another process is making this snapshot; go on without.
	ErrBusy = errors.New("snapshot is being made")
	// ErrDamaged: there was one that must not be thawed: torn, damaged, or made elsewhere. Where Lookup or Fetch says so it is
	// out of use already. Report it, and start cold.
	ErrDamaged = errors.New("snapshot is no good")
)

// Store is a directory of snapshots, shared by all processes of the node: each snapshot is a directory named by its key,
// beside a lock file. Whoever reads holds the lock shared, whoever makes or removes holds it alone; the kernel lets go of the
// locks of those who die.
type Store struct {
	dir      string
	maxBytes int64
	cpu      string // this node's CPUDigest
}

// Open opens the store, makes its directory where it is missing, and sweeps what processes left that died. maxBytes of 0 means
// DefaultMaxBytes.
func Open(dir string, maxBytes int64) (*Store, error) {
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	cpu, err := CPUDigest()
	if err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	s := &Store{dir: dir, maxBytes: maxBytes, cpu: cpu}
	return s, s.sweep()
}

func (s *Store) path(key string) string { return filepath.Join(s.dir, key) }

// Use is a snapshot in use: it is not removed until Release.
type Use struct {
	// Dir holds the snapshot's files.
	Dir string

	store    *Store
	manifest manifest
	lock     *os.File
	checks   []*Check
}

// Release lets the snapshot go, and ends checks that nobody waited for.
func (u *Use) Release() {
	for _, check := range u.checks {
		check.stop()
	}
	_ = u.lock.Close() // a lock file holds no data
}

// Quarantine takes a snapshot that could not be thawed out of use: it is kept for a look, once, and the next cold start makes
// a new one. Call it before Release, so that it cannot hit that new one.
func (u *Use) Quarantine(reason string) error {
	bad := u.Dir + badSuffix
	if _, err := os.Stat(u.Dir); errors.Is(err, os.ErrNotExist) {
		return nil // another one that tried was first
	}
	if err := os.RemoveAll(bad); err != nil {
		return fmt.Errorf("quarantine snapshot: %w", err)
	}
	if err := os.Rename(u.Dir, bad); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("quarantine snapshot: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bad, reasonFile), []byte(reason+"\n"), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("quarantine snapshot: %w", err)
	}
	return nil
}

// reasonFile of a quarantined snapshot says why it is.
const reasonFile = "reason.txt"

// Lookup finds the snapshot and keeps it from removal until released. ErrNotFound when there is none, ErrBusy when it is being
// made, ErrDamaged when there was one that is torn, was made elsewhere, or whose state is damaged; its pages are checked by
// Verify, while it is thawed.
func (s *Store) Lookup(ctx context.Context, key string) (*Use, error) {
	dir := s.path(key)
	if _, err := os.Stat(dir); err != nil {
		return nil, ErrNotFound
	}
	lock, err := s.lock(key, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	use := &Use{Dir: dir, store: s, lock: lock}
	if err := use.open(ctx, key); err != nil {
		defer use.Release()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, gone := os.Stat(dir); errors.Is(gone, os.ErrNotExist) {
			return nil, ErrNotFound // it was removed before we had the lock
		}
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrDamaged, err), use.Quarantine(err.Error()))
	}
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil && !errors.Is(err, unix.EROFS) {
		use.Release()
		return nil, fmt.Errorf("mark snapshot used: %w", err)
	}
	return use, nil
}

// open reads the manifest and checks all but the guest's pages.
func (u *Use) open(ctx context.Context, key string) error {
	var err error
	if u.manifest, err = readManifest(u.Dir); err != nil {
		return err
	}
	if err := u.manifest.checkNode(key, u.store.cpu); err != nil {
		return err
	}
	if err := u.manifest.checkSizes(u.Dir); err != nil {
		return err
	}
	return u.manifest.check(ctx, u.Dir, func(f file) bool { return f.Size <= checkedFirst })
}

// awaitStep is how often a waiting process looks again.
const awaitStep = 5 * time.Millisecond

// Await is Lookup that waits while another process is making or fetching the snapshot, ErrBusy when that took longer than the
// limit. Who makes one has loaded already and only writes, which is sooner done than another load; who still loads is not
// waited for.
func (s *Store) Await(ctx context.Context, key string, limit time.Duration) (*Use, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrBusy)
	defer cancel()
	look := time.NewTicker(awaitStep)
	defer look.Stop()
	for {
		making := s.making(key) // before the look: what is committed in between is found
		use, err := s.Lookup(context.WithoutCancel(ctx), key)
		if err == nil || errors.Is(err, ErrDamaged) || !making && !errors.Is(err, ErrBusy) {
			return use, err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// making tells whether a living process is making the snapshot.
func (s *Store) making(key string) bool {
	if _, err := os.Stat(s.path(key) + partSuffix); err != nil {
		return false
	}
	lock, err := s.lock(key, unix.LOCK_SH)
	if err != nil {
		return errors.Is(err, ErrBusy)
	}
	_ = lock.Close() // a lock file holds no data; its maker died
	return false
}
