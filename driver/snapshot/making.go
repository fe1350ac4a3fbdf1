package snapshot

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Making is a snapshot being made by this process alone.
type Making struct {
	// Dir is the empty directory to fill.
	Dir string
	// Load is how long the cold start took that the snapshot saves. Set it before Commit: a node that fetches the snapshot gives
	// up when that takes longer. 0 for not known.
	Load time.Duration

	store *Store
	key   string
	lock  *os.File
}

// Make begins a snapshot: ErrBusy when another process is at it, or has done it (go on without). Commit or Abort it.
func (s *Store) Make(key string) (*Making, error) {
	lock, err := s.lock(key, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	m := &Making{Dir: s.path(key) + partSuffix, store: s, key: key, lock: lock}
	if s.whole(key) { // made while we were starting
		m.Abort()
		return nil, ErrBusy
	}
	if err := errors.Join(os.RemoveAll(m.Dir), os.RemoveAll(s.path(key)), os.Mkdir(m.Dir, 0o700)); err != nil {
		m.Abort()
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	return m, nil
}

// whole tells whether the snapshot stands, as far as its manifest and its files' sizes say.
func (s *Store) whole(key string) bool {
	m, err := readManifest(s.path(key))
	return err == nil && m.checkNode(key, s.cpu) == nil && m.checkSizes(s.path(key)) == nil
}

// Commit makes the snapshot visible at once and whole, with the sums of all that was written, then removes the least recently
// used ones beyond the store's size. Nothing is forced to disk: after a power cut the sums tell.
func (m *Making) Commit(inputs Inputs) error {
	defer m.Abort()
	files, err := sumFiles(m.Dir)
	if err != nil {
		return err
	}
	return m.commit(manifest{Format: format, Inputs: inputs, Made: time.Now().UTC().Round(0), LoadMS: m.Load.Milliseconds(), Files: files})
}

func (m *Making) commit(content manifest) error {
	if err := content.checkNode(m.key, m.store.cpu); err != nil {
		return fmt.Errorf("commit snapshot: %w", err)
	}
	if err := content.write(m.Dir); err != nil {
		return err
	}
	if err := os.Rename(m.Dir, m.store.path(m.key)); err != nil {
		return fmt.Errorf("commit snapshot: %w", err)
	}
	return m.store.collect(m.key)
}

// Abort gives up what is not committed and lets others make it. After Commit it does nothing.
func (m *Making) Abort() {
	if m.lock == nil {
		return
	}
	_ = os.RemoveAll(m.Dir) // what stays is swept, or removed by the next maker
	_ = m.lock.Close()      // a lock file holds no data
	m.lock = nil
}
