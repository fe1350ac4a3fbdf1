package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// badAge is how long a quarantined snapshot is kept for a look.
const badAge = 24 * time.Hour

// Info is a snapshot of the node as people see it.
type Info struct {
	Key string `json:"key"`
	// Bytes is the size of its files.
	Bytes int64     `json:"bytes"`
	Used  time.Time `json:"used"`
	// Made and Inputs are as its manifest says; zero when that cannot be read.
	Made   time.Time `json:"made,omitzero"`
	Inputs Inputs    `json:"inputs,omitzero"`
	// Bad is why the snapshot is out of use; empty for one in use.
	Bad string `json:"bad,omitempty"`

	name string // of the directory
}

// List lists the node's snapshots, the most recently used first and the quarantined ones last.
func (s *Store) List() ([]Info, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var list []Info
	for _, entry := range entries {
		key, bad := strings.CutSuffix(entry.Name(), badSuffix)
		if !entry.IsDir() || !isKey(key) {
			continue
		}
		info, err := look(filepath.Join(s.dir, entry.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		info.Key, info.name = key, entry.Name()
		if bad {
			info.Bad = "unknown"
			if reason, err := os.ReadFile(filepath.Join(s.dir, entry.Name(), reasonFile)); err == nil {
				info.Bad = strings.TrimSpace(string(reason))
			}
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b Info) int {
		if good := a.Bad == ""; good != (b.Bad == "") {
			return map[bool]int{true: -1, false: 1}[good]
		}
		return b.Used.Compare(a.Used)
	})
	return list, nil
}

func isKey(name string) bool {
	return len(name) == hex.EncodedLen(sha256.Size) && strings.Trim(name, "0123456789abcdef") == ""
}

// look sums what is really there: the manifest of a damaged one says nothing.
func look(dir string) (Info, error) {
	stat, err := os.Stat(dir)
	if err != nil {
		return Info{}, err
	}
	info := Info{Used: stat.ModTime()}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Info{}, err
	}
	for _, entry := range entries {
		stat, err := entry.Info()
		if err != nil {
			return Info{}, err
		}
		info.Bytes += stat.Size()
	}
	if m, err := readManifest(dir); err == nil {
		info.Made, info.Inputs = m.Made, m.Inputs
	}
	return info, nil
}

// Remove deletes a snapshot, and what is quarantined under its key. ErrBusy when it is in use or being made, ErrNotFound when
// there is none.
func (s *Store) Remove(key string) error {
	if !isKey(key) {
		return fmt.Errorf("remove snapshot %q: %w: a key is 64 lower-case hex digits", key, ErrNotFound)
	}
	found := false
	for _, name := range []string{key, key + badSuffix} {
		if _, err := os.Stat(s.path(name)); err == nil {
			found = true
		}
	}
	if !found {
		return fmt.Errorf("remove snapshot %q: %w", key, ErrNotFound)
	}
	return errors.Join(s.remove(key, key), s.remove(key, key+badSuffix))
}

// remove deletes a directory unless its key is in use (ErrBusy).
func (s *Store) remove(key, name string) error {
	lock, err := s.lock(key, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	if err := os.RemoveAll(s.path(name)); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	return nil
}

// Collect removes what nobody will ask for again, and snapshots over the store's size. Call it now and then: making a snapshot collects
// too, but a node may make none for long.
func (s *Store) Collect(context.Context) error { return errors.Join(s.sweep(), s.collect("")) }

// collect removes snapshots until the store has its size: the quarantined ones first, then the least recently used; never the
// kept one and never one in use.
func (s *Store) collect(keep string) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	var total int64
	for _, snap := range list {
		total += snap.Bytes
	}
	for _, snap := range slices.Backward(list) {
		if total <= s.maxBytes {
			return nil
		}
		if snap.name == keep {
			continue
		}
		err := s.discard(snap, keep)
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			return err
		}
		total -= snap.Bytes
	}
	return nil
}

// discard removes one that is collected. Of the kept key the caller holds the lock already.
func (s *Store) discard(snap Info, keep string) error {
	if snap.Key == keep {
		return os.RemoveAll(s.path(snap.name))
	}
	return s.remove(snap.Key, snap.name)
}

// sweep removes what nobody will ask for again: half a snapshot whose maker died, the locks of snapshots that are gone, and
// what was quarantined long ago.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("sweep snapshot store: %w", err)
	}
	there := make(map[string]bool, len(entries))
	for _, entry := range entries {
		there[entry.Name()] = true
	}
	for _, entry := range entries {
		key, suffix, _ := strings.Cut(entry.Name(), ".")
		switch "." + suffix {
		case partSuffix:
			err = s.remove(key, entry.Name())
		case badSuffix:
			err = s.sweepBad(key, entry)
		case lockSuffix, pushSuffix:
			if !there[key] && !there[key+partSuffix] {
				err = sweepLock(filepath.Join(s.dir, entry.Name()))
			}
		}
		if err != nil && !errors.Is(err, ErrBusy) {
			return fmt.Errorf("sweep snapshot store: %w", err)
		}
	}
	return nil
}

func (s *Store) sweepBad(key string, entry os.DirEntry) error {
	info, err := entry.Info()
	if err != nil || time.Since(info.ModTime()) < badAge {
		return nil //nolint:nilerr // it went by itself
	}
	return s.remove(key, entry.Name())
}

// sweepLock removes a lock file that nobody holds. Who opens it in between notices that it is gone.
func sweepLock(path string) error {
	lock, err := lockFile(path, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	return os.Remove(path)
}
