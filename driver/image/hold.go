package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// storeLock guards what is held from being collected: shared by those who hold, taken alone by those who remove.
const storeLock = "store"

// holding is a hold that was just placed.
type holding struct {
	path string
	made bool // it was not there before
}

// hold keeps the image from collection for the task, until Release. It is a file: the holds of a task outlive the process.
func (s *Store) hold(ctx context.Context, task string, rec record) (holding, error) {
	lock, err := s.locks.lock(ctx, storeLock, unix.LOCK_SH)
	if err != nil {
		return holding{}, err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	err = s.known.touch(rec.Digest)
	if errors.Is(err, os.ErrNotExist) { // collected since we read it
		err = writeJSON(s.known.recordPath(rec.Digest), rec)
	}
	if err != nil {
		return holding{}, err
	}
	h := holding{path: filepath.Join(s.holds, taskName(task)+"."+rec.Digest)}
	file, err := os.OpenFile(h.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return h, nil
	}
	if err != nil {
		return holding{}, fmt.Errorf("hold image: %w", err)
	}
	h.made = true
	_, err = file.WriteString(task + "\n") // for people who look
	if err = errors.Join(err, file.Close()); err != nil {
		h.undo()
		return holding{}, fmt.Errorf("hold image: %w", err)
	}
	return h, nil
}

// undo lets go of the image unless the task held it before.
func (h holding) undo() {
	if h.made {
		_ = os.Remove(h.path) // what stays is let go by Release or Sweep
	}
}

// taskName is a task's name among the holds: ids of tasks hold slashes.
func taskName(task string) string { return hexDigest([]byte(task))[:32] }

// Release lets go of all that the task held. A task that holds nothing is no error.
func (s *Store) Release(task string) error {
	return s.release(func(name string) bool { return name == taskName(task) })
}

// Sweep lets go of what tasks held that are not among the live ones: those that ended while no plugin ran.
func (s *Store) Sweep(live []string) error {
	alive := make(map[string]bool, len(live))
	for _, task := range live {
		alive[taskName(task)] = true
	}
	return s.release(func(name string) bool { return !alive[name] })
}

// release removes the holds of the tasks, by their names among the holds.
func (s *Store) release(ended func(task string) bool) error {
	entries, err := os.ReadDir(s.holds)
	if err != nil {
		return fmt.Errorf("list held images: %w", err)
	}
	var failed []error
	for _, entry := range entries {
		task, digest, _ := strings.Cut(entry.Name(), ".")
		if !ended(task) {
			continue
		}
		if err := s.known.touch(digest); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
		if err := os.Remove(filepath.Join(s.holds, entry.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, fmt.Errorf("release image: %w", err))
		}
	}
	return errors.Join(failed...)
}

// held are the digests of the images that tasks hold.
func (s *Store) held() (map[string]bool, error) {
	entries, err := os.ReadDir(s.holds)
	if err != nil {
		return nil, fmt.Errorf("list held images: %w", err)
	}
	digests := make(map[string]bool, len(entries))
	for _, entry := range entries {
		_, digest, _ := strings.Cut(entry.Name(), ".")
		digests[digest] = true
	}
	return digests, nil
}
