package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

type stored struct {
	key   string
	bytes int64
	used  time.Time
}

// collect removes snapshots, the least recently used first, until the store has its size; never the kept one and never one
// in use. Quarantined ones count as the oldest.
func (s *Store) collect(keep string) error {
	list, total, err := s.list()
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b stored) int { return cmp.Compare(a.used.UnixNano(), b.used.UnixNano()) })
	for _, snap := range list {
		if total <= s.maxBytes {
			return nil
		}
		if snap.key == keep {
			continue
		}
		err := s.remove(snap.key)
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			return err
		}
		total -= snap.bytes
	}
	return nil
}

func (s *Store) list() ([]stored, int64, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("list snapshots: %w", err)
	}
	var list []stored
	var total int64
	for _, entry := range entries {
		key, ok := keyOf(entry)
		if !ok {
			continue
		}
		snap, err := s.stat(key)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed or not yet whole
		}
		if err != nil {
			return nil, 0, err
		}
		list = append(list, snap)
		total += snap.bytes
	}
	return list, total, nil
}

func (s *Store) stat(key string) (stored, error) {
	info, err := os.Stat(s.path(key))
	if err != nil {
		return stored{}, fmt.Errorf("look at snapshot: %w", err)
	}
	m, err := readManifest(s.path(key))
	if err != nil {
		return stored{}, err
	}
	return stored{key: key, bytes: m.bytes(), used: info.ModTime()}, nil
}

// remove deletes a snapshot unless it is in use (ErrBusy).
func (s *Store) remove(key string) error {
	lock, err := s.lock(key, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	if err := os.RemoveAll(s.path(key)); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	return nil
}
