package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultMaxBytes is how much disk snapshots may take unless the operator says otherwise.
const DefaultMaxBytes = 20 << 30

const (
	manifestFile = "manifest.json"
	partSuffix   = ".part"
	badSuffix    = ".bad"
	lockSuffix   = ".lock"
)

// Errors that callers decide by.
var (
	// ErrNotFound: there is no snapshot with this key; start cold.
	ErrNotFound = errors.New("no snapshot")
	// ErrBusy: another process is making this snapshot; go on without.
	ErrBusy = errors.New("snapshot is being made")
)

// Store is a directory of snapshots, shared by all processes of the node: each snapshot is a directory named by its key,
// beside a lock file. Whoever reads holds the lock shared, whoever makes or removes holds it alone; the kernel lets go of the
// locks of those who die.
type Store struct {
	dir      string
	maxBytes int64
}

// Open opens the store and makes its directory where it is missing. maxBytes of 0 means DefaultMaxBytes.
func Open(dir string, maxBytes int64) (*Store, error) {
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	return &Store{dir: dir, maxBytes: maxBytes}, nil
}

// Use is a snapshot in use: it is not removed until Release.
type Use struct {
	// Dir holds the snapshot's files.
	Dir  string
	lock *os.File
}

// Release lets the snapshot go.
func (u *Use) Release() { _ = u.lock.Close() } // a lock file holds no data

// manifest says what a snapshot consists of, so that a torn one is noticed before it is thawed.
type manifest struct {
	Inputs Inputs           `json:"inputs"`
	Made   time.Time        `json:"made"`
	Files  map[string]int64 `json:"files"`
}

func (m manifest) bytes() int64 {
	var sum int64
	for _, size := range m.Files {
		sum += size
	}
	return sum
}

func (s *Store) path(key string) string { return filepath.Join(s.dir, key) }

// lock opens the key's lock file and takes it; ErrBusy when it would have to wait.
func (s *Store) lock(key string, how int) (*os.File, error) {
	file, err := os.OpenFile(s.path(key)+lockSuffix, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open snapshot lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB); err != nil {
		_ = file.Close() // a lock file holds no data
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock snapshot: %w", err)
	}
	return file, nil
}

// Lookup finds the snapshot and keeps it from removal until released. ErrNotFound when there is none, or none whole.
func (s *Store) Lookup(key string) (*Use, error) {
	dir := s.path(key)
	if _, err := os.Stat(dir); err != nil {
		return nil, ErrNotFound
	}
	lock, err := s.lock(key, unix.LOCK_SH)
	if errors.Is(err, ErrBusy) {
		return nil, ErrNotFound // its maker holds the lock: not there yet
	}
	if err != nil {
		return nil, err
	}
	if err := verify(dir); err != nil {
		_ = lock.Close() // a lock file holds no data
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		_ = lock.Close() // a lock file holds no data
		return nil, fmt.Errorf("mark snapshot used: %w", err)
	}
	return &Use{Dir: dir, lock: lock}, nil
}

func readManifest(dir string) (manifest, error) {
	var m manifest
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return m, fmt.Errorf("read snapshot manifest: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read snapshot manifest: %w", err)
	}
	return m, nil
}

func verify(dir string) error {
	m, err := readManifest(dir)
	if err != nil {
		return err
	}
	for name, size := range m.Files {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("verify snapshot: %w", err)
		}
		if info.Size() != size {
			return fmt.Errorf("verify snapshot: %s has %d bytes, its manifest says %d", name, info.Size(), size)
		}
	}
	return nil
}

// Making is a snapshot being made by this process alone.
type Making struct {
	// Dir is the empty directory to fill.
	Dir   string
	store *Store
	key   string
	lock  *os.File
}

// Make begins a snapshot: ErrBusy when another process is at it (go on without). Commit or Abort it.
func (s *Store) Make(key string) (*Making, error) {
	lock, err := s.lock(key, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	m := &Making{Dir: s.path(key) + partSuffix, store: s, key: key, lock: lock}
	if verify(s.path(key)) == nil { // made while we were starting
		m.Abort()
		return nil, ErrBusy
	}
	if err := errors.Join(os.RemoveAll(m.Dir), os.RemoveAll(s.path(key)), os.Mkdir(m.Dir, 0o700)); err != nil {
		m.Abort()
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	return m, nil
}

// Commit makes the snapshot visible at once and whole, then removes the least recently used ones beyond the store's size.
func (m *Making) Commit(inputs Inputs) error {
	defer m.Abort()
	if err := m.writeManifest(inputs); err != nil {
		return err
	}
	if err := os.Rename(m.Dir, m.store.path(m.key)); err != nil {
		return fmt.Errorf("commit snapshot: %w", err)
	}
	return m.store.collect(m.key)
}

func (m *Making) writeManifest(inputs Inputs) error {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return fmt.Errorf("list snapshot: %w", err)
	}
	content := manifest{Inputs: inputs, Made: time.Now(), Files: make(map[string]int64)}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return fmt.Errorf("list snapshot: %w", err)
		}
		content.Files[entry.Name()] = info.Size()
	}
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("encode snapshot manifest: %w", err)
	}
	if err := os.WriteFile(filepath.Join(m.Dir, manifestFile), data, 0o600); err != nil {
		return fmt.Errorf("write snapshot manifest: %w", err)
	}
	return nil
}

// Abort gives up what is not committed and lets others make it. After Commit it does nothing.
func (m *Making) Abort() {
	if m.lock == nil {
		return
	}
	_ = os.RemoveAll(m.Dir) // what stays is removed by the next maker
	_ = m.lock.Close()      // a lock file holds no data
	m.lock = nil
}

// Quarantine takes a snapshot that could not be thawed out of use: it is kept for a look, once, and the next cold start
// makes a new one.
func (s *Store) Quarantine(key, reason string) error {
	bad := s.path(key) + badSuffix
	if err := os.RemoveAll(bad); err != nil {
		return fmt.Errorf("quarantine snapshot: %w", err)
	}
	if err := os.Rename(s.path(key), bad); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("quarantine snapshot: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bad, "reason.txt"), []byte(reason+"\n"), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("quarantine snapshot: %w", err)
	}
	return nil
}

// keyOf tells a snapshot's directory from the files beside it.
func keyOf(entry os.DirEntry) (string, bool) {
	name := strings.TrimSuffix(entry.Name(), badSuffix)
	return entry.Name(), entry.IsDir() && !strings.Contains(name, ".")
}
