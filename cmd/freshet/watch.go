package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long files must stay as they are before they are built: editors write a file in several steps.
const settle = 30 * time.Millisecond

// watch tells when the files of a source change.
type watch struct{ events *fsnotify.Watcher }

// newWatch watches the source's folder with all below it, and the folders of the module's other packages that a Go program is made of.
func newWatch(ctx context.Context, source string, s sdk) (*watch, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	w := &watch{events}
	folders := []string{folderOf(source)}
	if !strings.HasSuffix(source, ".py") {
		folders = append(folders, packagesOf(ctx, source, s)...)
	}
	for _, folder := range folders {
		if err := w.add(folder); err != nil {
			return nil, errors.Join(fmt.Errorf("watch %s: %w", folder, err), events.Close())
		}
	}
	return w, nil
}

// packagesOf are the folders of a Go program's own packages, none while it does not build: those of other modules do not change.
func packagesOf(ctx context.Context, dir string, s sdk) []string {
	environment, err := s.environment(ctx)
	if err != nil {
		return nil // the build says why
	}
	list := exec.CommandContext(ctx, "go", "list", "-e", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", ".")
	list.Dir, list.Env = dir, environment
	out, err := list.Output()
	if err != nil {
		return nil
	}
	return strings.Fields(string(out))
}

// add watches a folder and all below it, but for those that tools keep for themselves.
func (w *watch) add(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // it is gone meanwhile
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		if path != root && ignored(path) {
			return fs.SkipDir
		}
		return w.events.Add(path)
	})
}

// ignored tells of files and folders that are no source: hidden ones, what editors write on the side, and what Python and Node keep.
func ignored(path string) bool {
	name := filepath.Base(path)
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || name == "4913" || // which vim writes to see whether it may
		name == "__pycache__" || name == "node_modules"
}

// next waits until files have changed and are settled, and returns when the first of them did.
func (w *watch) next(ctx context.Context) (time.Time, error) {
	var began time.Time
	var settled <-chan time.Time
	for {
		select {
		case event := <-w.events.Events:
			if ignored(event.Name) || event.Op == fsnotify.Chmod {
				continue
			}
			if event.Has(fsnotify.Create) {
				if info, err := os.Stat(event.Name); err == nil && info.IsDir() {
					if err := w.add(event.Name); err != nil {
						return began, fmt.Errorf("watch %s: %w", event.Name, err)
					}
				}
			}
			if began.IsZero() {
				began = time.Now()
			}
			settled = time.After(settle)
		case err := <-w.events.Errors:
			return began, fmt.Errorf("watch files: %w", err)
		case <-settled:
			return began, nil
		case <-ctx.Done():
			return began, ctx.Err()
		}
	}
}

func (w *watch) close() error { return w.events.Close() }
