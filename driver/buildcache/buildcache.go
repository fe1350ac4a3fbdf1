// Package buildcache collects what builds of images keep on a node for the next ones.
package buildcache

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What a Cache leaves out.
const (
	// DefaultMaxBytes is how much disk it may take.
	DefaultMaxBytes = 50 << 30
	// DefaultMaxAge is how long is kept what no build uses.
	DefaultMaxAge = 14 * 24 * time.Hour
)

// What a build that runs may still need is not collected, however large it is: a layer is put in place moments after it was found, a
// directory that steps share is in use for as long as they run.
const (
	layerIdle = time.Hour
	cacheIdle = 24 * time.Hour
)

// Cache is the directory of a node's builds: a folder for each environment, with layers and caches as package build has them. The time of
// a file or a cache's directory is that of its last use.
type Cache struct {
	Dir string
	// MaxBytes is how much disk it may take. Default DefaultMaxBytes.
	MaxBytes int64
	// MaxAge is how long is kept what no build uses. Default DefaultMaxAge.
	MaxAge time.Duration
}

// entry is what is kept or removed as a whole.
type entry struct {
	path  string
	used  time.Time
	bytes int64
	idle  time.Duration
}

// Collect removes what was not used for MaxAge, and then what was used the longest ago, until the rest takes no more than MaxBytes.
func (c Cache) Collect(now time.Time) error {
	entries, err := c.list()
	if err != nil {
		return fmt.Errorf("collect builds: %w", err)
	}
	slices.SortFunc(entries, func(a, b entry) int { return a.used.Compare(b.used) })
	var all int64
	for _, e := range entries {
		all += e.bytes
	}
	var failed []error
	for _, e := range entries {
		unused := now.Sub(e.used)
		tooOld, tooMuch := unused > cmp.Or(c.MaxAge, DefaultMaxAge), all > cmp.Or(c.MaxBytes, DefaultMaxBytes)
		if unused < e.idle || !tooOld && !tooMuch {
			continue
		}
		if err := os.RemoveAll(e.path); err != nil {
			failed = append(failed, fmt.Errorf("collect builds: %w", err))
			continue
		}
		all -= e.bytes
	}
	return errors.Join(failed...)
}

func (c Cache) list() ([]entry, error) {
	var entries []entry
	for pattern, idle := range map[string]time.Duration{"layers": layerIdle, "caches": cacheIdle} {
		paths, err := filepath.Glob(filepath.Join(escape(c.Dir), "*", pattern, "*"))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			e := entry{path: path, idle: idle}
			if err := e.measure(); errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			} else if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// escape keeps a path's own characters from being taken for a pattern.
func escape(path string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(path)
}

// measure finds when it was used and what it takes.
func (e *entry) measure() error {
	info, err := os.Lstat(e.path)
	if err != nil {
		return err
	}
	e.used = info.ModTime()
	return filepath.WalkDir(e.path, func(path string, file fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // steps write there
		}
		if err != nil {
			return err
		}
		if info, err := file.Info(); err == nil && info.Mode().IsRegular() {
			e.bytes += info.Size()
		}
		return nil
	})
}
