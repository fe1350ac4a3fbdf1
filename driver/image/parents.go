package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A layer need not have entries for the directories that its files lie in. Where a lower layer has one, that one's owner and
// mode are meant: /tmp stays open to all when a layer adds a file to it. Overlayfs takes them from the highest layer that has
// the directory at all. So images with such layers get one more on top, which has nothing but those directories.

// stack is the layers of an image as they lie on the disk, the highest first.
type stack []laid

// laid is a layer in a stack: where it lies, and the directories that it has without an entry for them.
type laid struct {
	root    string
	implied []string
}

func (s *layerStore) stack(rec record) (stack, error) {
	layers := make(stack, 0, len(rec.Layers))
	seen := make(map[string]bool)
	for _, l := range slices.Backward(rec.Layers) {
		if seen[l.DiffID] {
			continue // what lies below itself adds nothing, and overlayfs refuses it
		}
		seen[l.DiffID] = true
		var meta unpacked
		if !readJSON(filepath.Join(s.path(l.DiffID), layerFile), &meta) {
			return nil, fmt.Errorf("read layer sha256:%s: its %s is torn", l.DiffID, layerFile)
		}
		layers = append(layers, laid{filepath.Join(s.path(l.DiffID), layerRoot), meta.Implied})
	}
	return layers, nil
}

// mend fills dir with the directories whose owner and mode must come from a lower layer; made is false where there are none.
func (st stack) mend(dir string) (made bool, err error) {
	seen := make(map[string]bool)
	for _, l := range st {
		for _, name := range l.implied {
			if seen[name] {
				continue
			}
			seen[name] = true
			shown, meant := st.owners(name)
			if shown < 0 || shown == meant || sameAttributes(filepath.Join(st[shown].root, name), filepath.Join(st[meant].root, name)) {
				continue
			}
			if err := st.copyDirectory(dir, name); err != nil {
				return false, fmt.Errorf("mend directory %s: %w", name, err)
			}
			made = true
		}
	}
	return made, nil
}

// owners finds the layer whose directory overlayfs shows, and the one that names it; both -1 where there is none, and the
// same where nobody names it.
func (st stack) owners(name string) (shown, meant int) {
	shown = -1
	for i, l := range st {
		there, end := l.look(name)
		if there && shown < 0 {
			shown = i
		}
		if there && !slices.Contains(l.implied, name) {
			return shown, i
		}
		if end {
			break
		}
	}
	return shown, shown
}

// look tells whether the layer has the directory, and whether it hides what lower layers have there.
func (l laid) look(name string) (there, end bool) {
	at := l.root
	for _, step := range append([]string{"."}, strings.Split(name, "/")...) {
		at = filepath.Join(at, step)
		info, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			return false, end
		}
		if err != nil || !info.IsDir() {
			return false, true // a whiteout or another file
		}
		end = end || isOpaque(at)
	}
	return true, end
}

func isOpaque(dir string) bool {
	value := make([]byte, 1)
	n, err := unix.Lgetxattr(dir, "trusted.overlay.opaque", value)
	return err == nil && n == 1 && value[0] == 'y'
}

// copyDirectory makes the directory and those above it in dir, each with the attributes that are meant.
func (st stack) copyDirectory(dir, name string) error {
	for _, part := range prefixes(name) {
		_, meant := st.owners(part)
		to := filepath.Join(dir, part)
		if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make directory: %w", err)
		}
		if err := copyAttributes(filepath.Join(st[meant].root, part), to); err != nil {
			return err
		}
	}
	return nil
}

// prefixes are ".", "a", "a/b" for "a/b".
func prefixes(name string) []string {
	list := []string{"."}
	for ; name != "."; name = path.Dir(name) {
		list = slices.Insert(list, 1, name)
	}
	return list
}

func sameAttributes(a, b string) bool {
	var one, other unix.Stat_t
	if unix.Lstat(a, &one) != nil || unix.Lstat(b, &other) != nil {
		return false
	}
	return one.Mode == other.Mode && one.Uid == other.Uid && one.Gid == other.Gid && len(attributes(a)) == 0 && len(attributes(b)) == 0
}

// attributes lists the extended attributes of a directory but overlayfs's own, which say something of the layer.
func attributes(path string) []string {
	list := make([]byte, 64<<10) // the kernel's own limit
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return nil
	}
	var names []string
	for name := range bytes.SplitSeq(list[:n], []byte{0}) {
		if len(name) > 0 && !bytes.HasPrefix(name, []byte("trusted.overlay.")) {
			names = append(names, string(name))
		}
	}
	return names
}

func copyAttributes(from, to string) error {
	var info unix.Stat_t
	if err := unix.Lstat(from, &info); err != nil {
		return fmt.Errorf("read attributes: %w", err)
	}
	if err := unix.Lchown(to, int(info.Uid), int(info.Gid)); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := unix.Chmod(to, info.Mode&^unix.S_IFMT); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	for _, name := range attributes(from) {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("copy attribute %s: %w", name, err)
		}
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{info.Mtim, info.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}
