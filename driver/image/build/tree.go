package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// tree is where files are copied from: the build's context, or the root of a stage or an image.
type tree struct {
	root string
	// ignored hides files of the context; nil hides none.
	ignored *patternmatcher.PatternMatcher
	// owned keeps the files' owners; those of the context belong to root.
	owned bool
	// what says in errors what it is.
	what string
}

const ignoreFile = ".dockerignore"

// openContext opens the build's context. Without one there is nothing to copy.
func openContext(dir string, ignore []byte) (*tree, error) {
	t := &tree{root: dir, what: "the build's context"}
	if dir == "" {
		return t, nil
	}
	if ignore == nil {
		var err error
		ignore, err = os.ReadFile(filepath.Join(dir, ignoreFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read %s: %w", ignoreFile, err)
		}
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(ignore))
	if err == nil && len(patterns) > 0 {
		t.ignored, err = patternmatcher.New(patterns)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ignoreFile, err)
	}
	return t, nil
}

// hides tells whether a file is not to be seen, by its path in the tree.
func (t *tree) hides(name string) (bool, error) {
	if t.ignored == nil || name == "." {
		return false, nil
	}
	return t.ignored.MatchesOrParentMatches(filepath.FromSlash(name))
}

// resolve is where a path lies on the host, links within the tree followed.
func (t *tree) resolve(name string) (string, error) {
	at, err := securejoin.SecureJoin(t.root, name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return at, nil
}

// match finds what a source of COPY means: the files of a pattern, or the one of that name.
func (t *tree) match(source string) ([]string, error) {
	if t.root == "" {
		return nil, fmt.Errorf("%q: there is no build context to copy from", source)
	}
	name := clean(source)
	if !strings.ContainsAny(name, `*?[\`) {
		hidden, err := t.hides(name)
		if err != nil {
			return nil, err
		}
		at, err := t.resolve(name)
		if err != nil {
			return nil, err
		}
		if _, err := os.Lstat(at); err != nil || hidden {
			return nil, t.missing(source, hidden)
		}
		return []string{name}, nil
	}
	found, err := t.glob(name)
	if err == nil && len(found) == 0 {
		err = t.missing(source, false)
	}
	return found, err
}

func (t *tree) missing(source string, hidden bool) error {
	if hidden {
		return fmt.Errorf("%q is in %s, and %s leaves it out", source, t.what, ignoreFile)
	}
	return fmt.Errorf("%q is not in %s", source, t.what)
}

// glob finds the files of a pattern, one part of the path after the other.
func (t *tree) glob(pattern string) ([]string, error) {
	found := []string{"."}
	for part := range strings.SplitSeq(pattern, "/") {
		var next []string
		for _, dir := range found {
			names, err := t.globIn(dir, part)
			if err != nil {
				return nil, err
			}
			next = append(next, names...)
		}
		found = next
	}
	var seen []string
	for _, name := range found {
		hidden, err := t.hides(name)
		if err != nil {
			return nil, err
		}
		if !hidden {
			seen = append(seen, name)
		}
	}
	return seen, nil
}

func (t *tree) globIn(dir, part string) ([]string, error) {
	at, err := t.resolve(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return nil, nil // no directory: nothing in it matches
	}
	var names []string
	for _, entry := range entries {
		ok, err := path.Match(part, entry.Name())
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", part, err)
		}
		if ok {
			names = append(names, path.Join(dir, entry.Name()))
		}
	}
	return names, nil
}

// clean makes a path one of the tree: "/a/../b" and "./b" are "b".
func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// hashFile is the digest of a file's content, in hex.
func hashFile(at string) (string, error) {
	file, err := os.Open(at)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", filepath.Base(at), err)
	}
	defer func() { _ = file.Close() }() // read only
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", fmt.Errorf("read %s: %w", filepath.Base(at), err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
