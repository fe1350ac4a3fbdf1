// Package volumes keeps the cluster's named volumes: directories below one directory, NAMESPACE/NAME, that workers see as mounts. What is
// in them is written by user code and so hostile: no path, link or special file in a volume leads out of it or stops who reads it.
package volumes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Reserve is what the gateway leaves free on the disk of the volumes, in bytes.
const Reserve = 256 << 20

var (
	// ErrExists says that there is a volume of the name already.
	ErrExists = errors.New("there is a volume of this name already")
	// ErrFull says that the disk has no room for what was to be stored. What was stored before it was full stays.
	ErrFull = errors.New("the disk of the volumes is full")
)

// NotFoundError says which volume there is not.
type NotFoundError struct{ Namespace, Name string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no volume %s in namespace %s: make it with `freshet volume create %s`", e.Name, e.Namespace, e.Name)
}

// PathError says what is wrong with a path in a volume.
type PathError struct{ Path, Mend string }

func (e *PathError) Error() string { return fmt.Sprintf("path: %q: %s", e.Path, e.Mend) }

// Store is the directory of the volumes.
type Store struct{ dir string }

// Open makes the directory where it is missing. Nobody but root gets into it from outside of a sandbox.
func Open(dir string) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open volumes: %q: use an absolute path", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	return &Store{dir}, nil
}

// Info is a volume.
type Info struct {
	Name string
	// Changed is when an entry right in it last came or went.
	Changed time.Time
}

// List are the volumes of a namespace, in the order of their names.
func (s *Store) List(namespace string) ([]Info, error) {
	if !spec.ValidName(namespace) {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, namespace))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var list []Info
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && info.IsDir() && spec.ValidName(entry.Name()) { // else it was removed meanwhile, or is no volume
			list = append(list, Info{entry.Name(), info.ModTime().UTC().Truncate(time.Second)})
		}
	}
	return list, nil
}

// Has tells whether there is a volume.
func (s *Store) Has(namespace, name string) bool {
	volume, err := s.Volume(namespace, name)
	if err == nil {
		volume.Close()
	}
	return err == nil
}

// Create makes an empty volume, which every user of a sandbox may write to.
func (s *Store) Create(namespace, name string) error {
	if !spec.ValidName(namespace) || !spec.ValidName(name) {
		return &PathError{namespace + "/" + name, "name namespace and volume by 1 to 63 letters, digits, '-' and '_'"}
	}
	if err := os.MkdirAll(filepath.Join(s.dir, namespace), 0o700); err != nil {
		return fmt.Errorf("create volume %s: %w", name, err)
	}
	dir := filepath.Join(s.dir, namespace, name)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err == nil {
		err = os.Chmod(dir, 0o777) //nolint:gosec // sandboxes' users are any; the directory above lets nobody else in
	}
	if err != nil {
		return fmt.Errorf("create volume %s: %w", name, err)
	}
	return nil
}

// Remove removes a volume with all that is in it.
func (s *Store) Remove(namespace, name string) error {
	if !s.Has(namespace, name) {
		return &NotFoundError{namespace, name}
	}
	if err := os.RemoveAll(filepath.Join(s.dir, namespace, name)); err != nil { // follows no links
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// Volume opens a volume. Close it.
func (s *Store) Volume(namespace, name string) (*Tree, error) {
	if !spec.ValidName(namespace) || !spec.ValidName(name) {
		return nil, &NotFoundError{namespace, name}
	}
	dir := filepath.Join(s.dir, namespace, name)
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return nil, &NotFoundError{namespace, name}
	}
	return OpenTree(dir)
}

// Room is how many bytes may be stored yet.
func (s *Store) Room() (int64, error) {
	free, err := freeBytes(s.dir)
	if err != nil {
		return 0, fmt.Errorf("measure the disk of the volumes: %w", err)
	}
	return max(0, free-Reserve), nil
}

// Tree is a directory with files: a volume, or a folder that is copied to one or from one. Nothing outside of it is reached by any path.
type Tree struct{ root *os.Root }

// OpenTree opens a directory. Close it.
func OpenTree(dir string) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &Tree{root}, nil
}

// Close lets go of the directory.
func (t *Tree) Close() { _ = t.root.Close() } // a descriptor

// CleanPath makes a path in a volume a relative one: "", "/" and "." are the volume itself.
func CleanPath(path string) (string, error) {
	clean := strings.Trim(path, "/")
	switch {
	case clean == "" || clean == ".":
		return ".", nil
	case len(path) > 4096 || strings.ContainsRune(path, 0):
		return "", &PathError{path, "use at most 4096 bytes, none of them zero"}
	}
	for part := range strings.SplitSeq(clean, "/") {
		if part == ".." || part == "." || part == "" || len(part) > 255 {
			return "", &PathError{path, "use a path within the volume, such as \"models/a.bin\", without '.', '..' and doubled slashes"}
		}
	}
	return clean, nil
}

// The kinds of entries.
const (
	KindFile  = "file"
	KindDir   = "dir"
	KindLink  = "link"
	KindOther = "other"
)

// Entry is a file or folder in a tree.
type Entry struct {
	Path     string    `json:"path"`
	Kind     string    `json:"kind"`
	Size     int64     `json:"size"`
	Mode     string    `json:"mode"`
	Modified time.Time `json:"modified"`
}

func entryOf(path string, info fs.FileInfo) Entry {
	e := Entry{Path: path, Kind: KindOther, Mode: fmt.Sprintf("%04o", info.Mode().Perm()), Modified: info.ModTime().UTC()}
	switch {
	case info.Mode().IsRegular():
		e.Kind, e.Size = KindFile, info.Size()
	case info.IsDir():
		e.Kind = KindDir
	case info.Mode()&fs.ModeSymlink != 0:
		e.Kind = KindLink
	}
	return e
}

// Walk tells what a folder has, or the one file that the path names: what is right in it, or all below it. Links are told and not followed.
func (t *Tree) Walk(path string, recursive bool, tell func(Entry) error) error {
	path, err := CleanPath(path)
	if err != nil {
		return err
	}
	info, err := t.root.Lstat(path)
	if err != nil {
		return mend(path, err)
	}
	if !info.IsDir() {
		return tell(entryOf(path, info))
	}
	return fs.WalkDir(t.root.FS(), path, func(name string, entry fs.DirEntry, err error) error {
		if name == path && err == nil {
			return nil
		}
		info, gone := fs.FileInfo(nil), err
		if gone == nil {
			info, gone = entry.Info()
		}
		if errors.Is(gone, fs.ErrNotExist) && name != path {
			return nil // it was removed meanwhile
		}
		if gone != nil {
			return mend(name, gone)
		}
		if err := tell(entryOf(name, info)); err != nil {
			return err
		}
		if entry.IsDir() && !recursive {
			return fs.SkipDir
		}
		return nil
	})
}

// mend says of a path why it cannot be had.
func mend(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &PathError{path, "there is no such file"}
	case errors.Is(err, fs.ErrExist):
		return &PathError{path, "something of another kind is there: remove it first"}
	case noSpace(err):
		return ErrFull
	case wrongWay(err):
		return &PathError{path, "a part of it leads out of the volume, or is no folder"}
	}
	return fmt.Errorf("%s: %w", path, err)
}

// File opens a file for reading. It fails with a *PathError for what is none: a folder, or a pipe, which would keep the reader waiting.
func (t *Tree) File(path string) (*os.File, fs.FileInfo, error) {
	path, err := CleanPath(path)
	if err != nil {
		return nil, nil, err
	}
	file, err := t.root.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, nil, mend(path, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &PathError{path, "it is no file"}
	}
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, nil, err
	}
	return file, info, nil
}

// Folder tells whether a path is a folder; a link to one in the tree is one too.
func (t *Tree) Folder(path string) (bool, error) {
	path, err := CleanPath(path)
	if err != nil {
		return false, err
	}
	info, err := t.root.Stat(path)
	if err != nil {
		return false, mend(path, err)
	}
	return info.IsDir(), nil
}

// uploadPrefix begins the names of files that are not whole yet.
const uploadPrefix = ".freshet-upload-"

// Put stores a file, over one that is there; whoever opens it sees the old one or the whole new one. Folders on the way are made.
func (t *Tree) Put(path string, mode fs.FileMode, in io.Reader) (int64, error) {
	path, err := CleanPath(path)
	if err == nil && path == "." {
		err = &PathError{path, "name a file in the volume"}
	}
	if err != nil {
		return 0, err
	}
	folder := filepath.ToSlash(filepath.Dir(path))
	if err := t.Mkdir(folder); err != nil {
		return 0, err
	}
	if info, err := t.root.Lstat(path); err == nil && info.IsDir() {
		return 0, &PathError{path, "a folder is there: name a file in it"}
	}
	partial := folder + "/" + uploadPrefix + randomName()
	written, err := t.write(partial, mode.Perm(), in)
	if err == nil {
		err = mendAny(path, t.root.Rename(partial, path))
	}
	if err != nil {
		_ = t.root.Remove(partial) // the first error counts
		return 0, err
	}
	return written, nil
}

func mendAny(path string, err error) error {
	if err == nil {
		return nil
	}
	return mend(path, err)
}

func (t *Tree) write(path string, mode fs.FileMode, in io.Reader) (int64, error) {
	file, err := t.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, mend(path, err)
	}
	written, err := io.Copy(file, in)
	if err == nil {
		err = file.Chmod(mode)
	}
	err = errors.Join(err, file.Close())
	if noSpace(err) {
		err = ErrFull
	}
	return written, err
}

// Mkdir makes a folder with those above it, where they are missing.
func (t *Tree) Mkdir(path string) error {
	path, err := CleanPath(path)
	if err != nil {
		return err
	}
	at := ""
	for part := range strings.SplitSeq(path, "/") {
		at = strings.TrimPrefix(at+"/"+part, "/")
		err := t.root.Mkdir(at, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue // if it is no folder, what is below it fails
		}
		if err == nil {
			err = t.root.Chmod(at, 0o777) // as the volume's own
		}
		if err != nil {
			return mend(path, err)
		}
	}
	if info, err := t.root.Stat(path); err != nil || !info.IsDir() {
		return &PathError{path, "a part of it leads out of the volume, or is no folder"}
	}
	return nil
}

// Remove removes a file, an empty folder, or, where asked for, a folder with all that is in it. Of a link it removes the link.
func (t *Tree) Remove(path string, recursive bool) error {
	path, err := CleanPath(path)
	if err == nil && path == "." {
		err = &PathError{path, "name what to remove; `freshet volume delete` removes a volume"}
	}
	if err != nil {
		return err
	}
	info, err := t.root.Lstat(path)
	if err != nil {
		return mend(path, err)
	}
	if recursive {
		return mendAny(path, t.root.RemoveAll(path))
	}
	err = t.root.Remove(path)
	if err != nil && info.IsDir() {
		return &PathError{path, "the folder is not empty: remove it with all that is in it by -r"}
	}
	return mendAny(path, err)
}
