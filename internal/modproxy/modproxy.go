// Package modproxy writes a Go module as the files that a module proxy serves, so that the Go command builds with a version that no
// server has, and without a network. See https://go.dev/ref/mod#goproxy-protocol for the files.
package modproxy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// Module is a module's path and source. Its tests are not part of it.
type Module struct {
	Path   string
	Source fs.FS
}

// Version is a version for exactly this source: the base, such as "v0.1.0-dev", and the sum of the files.
func (m Module) Version(base string) (string, error) {
	sum := sha256.New()
	err := m.walk(func(name string, data []byte) {
		fmt.Fprintf(sum, "%q %d\n%s", name, len(data), data)
	})
	if err != nil {
		return "", err
	}
	return base + ".h" + hex.EncodeToString(sum.Sum(nil))[:12], nil // the letter, since semantic versions take no number that begins with 0
}

func (m Module) walk(visit func(name string, data []byte)) error {
	err := fs.WalkDir(m.Source, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(name, "_test.go") {
			return err
		}
		data, err := fs.ReadFile(m.Source, name)
		if err != nil {
			return err
		}
		visit(name, data)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the source of %s: %w", m.Path, err)
	}
	return nil
}

// Write adds a version to the proxy in dir, unless it is there.
func (m Module) Write(dir, version string) error {
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return fmt.Errorf("write module: %w", err)
	}
	versions := filepath.Join(dir, filepath.FromSlash(escaped), "@v")
	info := filepath.Join(versions, version+".info")
	if _, err := os.Stat(info); err == nil {
		return nil
	}
	if err := m.write(versions, version, info); err != nil {
		return fmt.Errorf("write module %s@%s: %w", m.Path, version, err)
	}
	return nil
}

// write writes the info last: it says that the rest is there.
func (m Module) write(versions, version, info string) error {
	if err := os.MkdirAll(versions, 0o755); err != nil {
		return err
	}
	mod, err := fs.ReadFile(m.Source, "go.mod")
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(versions, version+".mod"), func(out io.Writer) error {
		_, err := out.Write(mod)
		return err
	}); err != nil {
		return err
	}
	var files []modzip.File
	if err := m.walk(func(name string, _ []byte) { files = append(files, file{m.Source, name}) }); err != nil {
		return err
	}
	if err := replace(filepath.Join(versions, version+".zip"), func(out io.Writer) error {
		return modzip.Create(out, module.Version{Path: m.Path, Version: version}, files)
	}); err != nil {
		return err
	}
	return replace(info, func(out io.Writer) error {
		return json.NewEncoder(out).Encode(map[string]any{"Version": version, "Time": time.Unix(0, 0).UTC()})
	})
}

// replace makes a file whole or not at all: others may read it, or write it too.
func replace(name string, write func(io.Writer) error) error {
	part, err := os.CreateTemp(filepath.Dir(name), "part-")
	if err != nil {
		return err
	}
	err = errors.Join(write(part), part.Chmod(0o644), part.Close())
	if err == nil {
		err = os.Rename(part.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part.Name()))
	}
	return nil
}

// file is one of the source, as the maker of zip files wants it.
type file struct {
	source fs.FS
	name   string
}

func (f file) Path() string                 { return path.Clean(f.name) }
func (f file) Lstat() (fs.FileInfo, error)  { return fs.Stat(f.source, f.name) }
func (f file) Open() (io.ReadCloser, error) { return f.source.Open(f.name) }
