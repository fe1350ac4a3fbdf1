package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kept is an image in the store, as collection sees it.
type kept struct {
	rec  record
	used time.Time
	held bool
}

// Collect removes images that no task holds: those not used for MaxAge, then the least recently used ones until the layers
// have MaxBytes, with what was left of pulls that died. It unmounts roots that nobody uses, and brings new layers to the disk: those
// unpacked since the last time do not outlive the node's crash. Call it now and then, such as each minute: starts wait only
// while it decides.
func (s *Store) Collect(ctx context.Context) error {
	if err := errors.Join(s.condemn(ctx), s.layers.secure()); err != nil {
		return fmt.Errorf("collect images: %w", err)
	}
	entries, err := os.ReadDir(s.trash)
	if err != nil {
		return fmt.Errorf("collect images: %w", err)
	}
	for _, entry := range entries {
		if ctx.Err() != nil {
			return fmt.Errorf("collect images: %w", context.Cause(ctx))
		}
		if err := os.RemoveAll(filepath.Join(s.trash, entry.Name())); err != nil {
			return fmt.Errorf("collect images: %w", err)
		}
	}
	return nil
}

// condemn decides what goes, and moves it out of the way.
func (s *Store) condemn(ctx context.Context) error {
	lock, err := s.locks.lock(ctx, storeLock, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	all, err := s.list()
	if err != nil {
		return err
	}
	sizes, err := s.layers.sizes()
	if err != nil {
		return err
	}
	stay, gone := divide(all, sizes, s.config.MaxBytes, time.Now().Add(-s.config.MaxAge))
	busy, err := s.roots.unmountUnused(stay)
	if err != nil {
		return err
	}
	for _, img := range gone {
		if busy[img.rec.content()] {
			stay = append(stay, img)
			continue
		}
		if err := os.Remove(s.known.recordPath(img.rec.Digest)); err != nil {
			return fmt.Errorf("remove image: %w", err)
		}
		s.log.Info().Str("digest", img.rec.Digest).Time("used", img.used).Msg("removed image")
	}
	return errors.Join(s.dropRefs(), s.layers.dropUnused(stay, sizes), s.layers.dropParts())
}

// divide decides which images stay. bytes are those of each layer; images used before the time go in any case.
func divide(all []kept, bytes map[string]int64, most int64, before time.Time) (stay, gone []kept) {
	users := make(map[string]int) // of each layer
	var total int64
	for _, img := range all {
		for _, l := range img.layers() {
			if users[l]++; users[l] == 1 {
				total += bytes[l]
			}
		}
	}
	slices.SortStableFunc(all, func(a, b kept) int { return cmp.Compare(a.used.UnixNano(), b.used.UnixNano()) })
	for _, img := range all {
		if img.held || (total <= most && !img.used.Before(before)) {
			stay = append(stay, img)
			continue
		}
		gone = append(gone, img)
		for _, l := range img.layers() {
			if users[l]--; users[l] == 0 {
				total -= bytes[l]
			}
		}
	}
	return stay, gone
}

// layers are the names of the image's layers, each once.
func (k kept) layers() []string {
	ids := make([]string, len(k.rec.Layers))
	for i, l := range k.rec.Layers {
		ids[i] = l.DiffID
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (s *Store) list() ([]kept, error) {
	held, err := s.held()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.known.images)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var all []kept
	for _, entry := range entries {
		path := filepath.Join(s.known.images, entry.Name())
		var img kept
		if strings.HasPrefix(entry.Name(), partPrefix) || !readJSON(path, &img.rec) {
			removeOld(path, entry)
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		img.used, img.held = info.ModTime(), held[img.rec.Digest]
		all = append(all, img)
	}
	return all, nil
}

// removeOld removes a file that is torn, or was being written by one who died at it.
func removeOld(path string, entry os.DirEntry) {
	if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
		_ = os.Remove(path) // the next collection sees it again
	}
}

// sizes are the bytes of each layer.
func (s *layerStore) sizes() (map[string]int64, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	bytes := make(map[string]int64, len(entries))
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), partPrefix) {
			continue
		}
		var meta unpacked
		_ = readJSON(filepath.Join(s.dir, entry.Name(), layerFile), &meta) // one without is an orphan soon
		bytes[entry.Name()] = meta.Bytes
	}
	return bytes, nil
}

// unmountUnused unmounts the roots of all images but those held. busy are those that the kernel says are in use all the same.
func (s *roots) unmountUnused(stay []kept) (busy map[string]bool, err error) {
	used := make(map[string]bool)
	for _, img := range stay {
		if img.held {
			used[img.rec.content()] = true
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	busy = make(map[string]bool)
	for _, entry := range entries {
		content := strings.TrimSuffix(strings.TrimSuffix(entry.Name(), baseSuffix), mendSuffix)
		if used[content] || busy[content] {
			continue
		}
		err := s.unmount(content)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, errBusy) {
			busy[content] = true
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return busy, nil
}

func (s *roots) unmount(content string) error {
	lock, err := s.locks.tryLock(mountLock(content), unix.LOCK_EX)
	if err != nil {
		return err
	}
	if err := s.unmountLocked(content); err != nil {
		_ = lock.Close() // a lock file holds no data
		return err
	}
	s.locks.drop(mountLock(content), lock)
	return nil
}

// dropRefs forgets what references meant whose image is gone.
func (s *Store) dropRefs() error {
	entries, err := os.ReadDir(s.known.refs)
	if err != nil {
		return fmt.Errorf("list references: %w", err)
	}
	for _, entry := range entries {
		var known resolution
		path := filepath.Join(s.known.refs, entry.Name())
		if strings.HasPrefix(entry.Name(), partPrefix) {
			removeOld(path, entry)
			continue
		}
		if readJSON(path, &known) {
			if _, err := os.Lstat(s.known.recordPath(known.Digest)); err == nil {
				continue
			}
		}
		name := refLock(strings.TrimSuffix(entry.Name(), ".json"))
		lock, err := s.locks.tryLock(name, unix.LOCK_EX)
		if err != nil {
			continue // someone asks for it right now
		}
		_ = os.Remove(path) // the next collection sees it again
		s.locks.drop(name, lock)
	}
	return nil
}

// dropUnused moves the layers that no image has any more to the trash.
func (s *layerStore) dropUnused(stay []kept, sizes map[string]int64) error {
	used := make(map[string]bool)
	for _, img := range stay {
		for _, l := range img.layers() {
			used[l] = true
		}
	}
	for id := range sizes {
		if used[id] {
			continue
		}
		if err := s.drop(id, id); err != nil {
			return err
		}
	}
	return nil
}

// dropParts does the same with what those left who died while they made a layer.
func (s *layerStore) dropParts() error {
	parts, err := filepath.Glob(filepath.Join(s.dir, partPrefix+"*"))
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	for _, part := range parts {
		if err := s.drop(strings.TrimPrefix(filepath.Base(part), partPrefix), filepath.Base(part)); err != nil {
			return err
		}
	}
	return nil
}

// drop moves a directory of the layer to the trash unless someone makes the layer.
func (s *layerStore) drop(id, name string) error {
	lock, err := s.locks.tryLock(layerLock(id), unix.LOCK_EX)
	if errors.Is(err, errBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	to, err := os.MkdirTemp(s.trash, id[:min(12, len(id))]+"-")
	if err == nil {
		err = os.Rename(filepath.Join(s.dir, name), filepath.Join(to, "layer"))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = lock.Close() // a lock file holds no data
		return fmt.Errorf("remove layer: %w", err)
	}
	s.locks.drop(layerLock(id), lock)
	return nil
}
