package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"
)

// doCopy copies files of the context, of another stage or of an image.
func (s *stage) doCopy(ctx context.Context, c *instructions.CopyCommand) error {
	from, err := s.source(ctx, c.From)
	if err != nil {
		return err
	}
	owner, err := s.ownership(c.Chown, c.Chmod)
	if err != nil {
		return err
	}
	items := newItems(s, owner)
	if err := items.exclude(c.ExcludePatterns); err != nil {
		return err
	}
	if err := items.copy(from, c.SourcesAndDest); err != nil {
		return err
	}
	return s.write(ctx, c, items)
}

// source is where COPY takes files from.
func (s *stage) source(ctx context.Context, from string) (*tree, error) {
	if from == "" {
		return s.run.context, nil
	}
	if other, ok := s.run.file.stageNamed(from, s.index); ok {
		made, err := s.run.await(ctx, other)
		if err != nil {
			return nil, err
		}
		return &tree{root: made.root(), owned: true, what: "stage " + made.name}, nil
	}
	img, err := s.run.base(ctx, from)
	if err != nil {
		return nil, err
	}
	return &tree{root: img.Root, owned: true, what: "image " + from}, nil
}

// write makes the layer of what is copied.
func (s *stage) write(ctx context.Context, command instructions.Command, items *items) error {
	if err := items.conflicts(); err != nil {
		return err
	}
	digest, err := items.digest()
	if err != nil {
		return err
	}
	return s.step(ctx, command, keyOf(s.key, "files", digest), func(l *layerWriter) error { return items.write(ctx, l) })
}

// place is where something is copied to.
type place struct {
	// path is in the root, without links but for its last part.
	path string
	// dir tells whether it is, or will be, a directory; named, whether the path itself says so.
	dir, named bool
}

// destination finds where a path leads in the stage's root. several tells that it has to be a directory.
func (s *stage) destination(name string, several bool) (place, error) {
	named := several || strings.HasSuffix(name, "/") || path.Base(name) == "." || path.Base(name) == ".."
	dir := named
	if !path.IsAbs(name) {
		name = path.Join(s.config.workDir(), name)
	}
	t := tree{root: s.root()}
	at, err := t.resolve(clean(name))
	if err != nil {
		return place{}, err
	}
	info, err := os.Stat(at)
	switch {
	case err == nil && info.IsDir():
		dir = true
	case err == nil && dir:
		return place{}, fmt.Errorf("%s is a file, not a directory", name)
	case !dir: // a link there is replaced, not followed
		if at, err = t.resolve(path.Dir(clean(name))); err != nil {
			return place{}, err
		}
		at = filepath.Join(at, path.Base(clean(name)))
	}
	rel, err := filepath.Rel(t.root, at)
	if err != nil {
		return place{}, fmt.Errorf("find %s: %w", name, err)
	}
	return place{path: filepath.ToSlash(rel), dir: dir, named: named}, nil
}

// item is one file to be written to a layer.
type item struct {
	name string
	// at is where its content lies; empty for a directory or content of its own.
	at     string
	data   []byte
	header *tar.Header
}

// items are the files of a COPY, each name once, directories before what is in them.
type items struct {
	stage    *stage
	owner    ownership
	excluded *patternmatcher.PatternMatcher

	list  []*item
	names map[string]*item
	// inodes finds files that have several names.
	inodes map[[2]uint64]string
}

func newItems(s *stage, owner ownership) *items {
	return &items{stage: s, owner: owner, names: make(map[string]*item), inodes: make(map[[2]uint64]string)}
}

func (i *items) exclude(patterns []string) (err error) {
	if len(patterns) == 0 {
		return nil
	}
	if i.excluded, err = patternmatcher.New(patterns); err != nil {
		return fmt.Errorf("--exclude: %w", err)
	}
	return nil
}

// copy takes in the sources of a COPY.
func (i *items) copy(from *tree, c instructions.SourcesAndDest) error {
	var matched []string
	for _, source := range c.SourcePaths {
		names, err := from.match(source)
		if err != nil {
			return err
		}
		matched = append(matched, names...)
	}
	count := len(matched) + len(c.SourceContents)
	if count > 1 && !strings.HasSuffix(c.DestPath, "/") && path.Base(c.DestPath) != "." {
		return fmt.Errorf("%q: several files go to a directory: end it with /", c.DestPath)
	}
	dest, err := i.stage.destination(c.DestPath, count > 1)
	if err != nil {
		return err
	}
	for _, name := range matched {
		if err := i.add(from, name, dest); err != nil {
			return err
		}
	}
	for _, content := range c.SourceContents {
		if err := i.addContent(content, dest); err != nil {
			return err
		}
	}
	return nil
}

// add takes in one source: a file, or what is in a directory.
func (i *items) add(from *tree, name string, dest place) error {
	at, err := from.resolve(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(at)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	to := dest.path
	if !info.IsDir() {
		if dest.dir {
			to = path.Join(to, path.Base(name))
		}
		if err := i.parents(to); err != nil {
			return err
		}
		return i.put(from, at, to, info)
	}
	if err := i.parents(to); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(i.stage.root(), to)); err != nil && !dest.named && i.names[to] == nil {
		if err := i.put(from, at, to, info); err != nil { // a directory in the source's image
			return err
		}
	}
	if err := i.parents(to + "/."); err != nil {
		return err
	}
	return i.addDir(from, name, at, to)
}

// addDir takes in what is in a directory.
func (i *items) addDir(from *tree, name, at, to string) error {
	return filepath.WalkDir(at, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(at, file)
		if err != nil || rel == "." {
			return err
		}
		rel = filepath.ToSlash(rel)
		hidden, err := i.hidden(from, name, rel)
		if err != nil {
			return err
		}
		if hidden {
			if entry.IsDir() && (from.ignored == nil || !from.ignored.Exclusions()) && (i.excluded == nil || !i.excluded.Exclusions()) {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if err := i.between(from, at, to, rel); err != nil {
			return err
		}
		return i.put(from, file, path.Join(to, rel), info)
	})
}

func (i *items) hidden(from *tree, name, rel string) (bool, error) {
	hidden, err := from.hides(path.Join(name, rel))
	if err != nil || hidden || i.excluded == nil {
		return hidden, err
	}
	return i.excluded.MatchesOrParentMatches(filepath.FromSlash(rel))
}

// between takes in the directories above a file that were left out themselves.
func (i *items) between(from *tree, at, to, rel string) error {
	dir := path.Dir(rel)
	if dir == "." || i.names[path.Join(to, dir)] != nil {
		return nil
	}
	if err := i.between(from, at, to, dir); err != nil {
		return err
	}
	info, err := os.Lstat(filepath.Join(at, dir))
	if err != nil {
		return err
	}
	return i.put(from, filepath.Join(at, dir), path.Join(to, dir), info)
}

// put takes in one file.
func (i *items) put(from *tree, at, name string, info fs.FileInfo) error {
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(at); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	header.Name, header.Uname, header.Gname, header.Format = name, "", "", tar.FormatPAX
	if !from.owned {
		header.Uid, header.Gid = 0, 0
	}
	i.owner.apply(header)
	one := &item{name: name, at: at, header: header}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && header.Typeflag == tar.TypeReg && stat.Nlink > 1 {
		i.linked(one, [2]uint64{stat.Dev, stat.Ino})
	}
	i.insert(one)
	return nil
}

// linked makes a further name of a file a link to its first.
func (i *items) linked(one *item, inode [2]uint64) {
	first, seen := i.inodes[inode]
	if !seen {
		i.inodes[inode] = one.name
		return
	}
	one.header.Typeflag, one.header.Linkname, one.header.Size = tar.TypeLink, first, 0
}

func (i *items) insert(one *item) {
	if old := i.names[one.name]; old != nil {
		*old = *one // the later source has the last word
		return
	}
	i.names[one.name] = one
	i.list = append(i.list, one)
}

// addContent takes in a file that stands in the Dockerfile.
func (i *items) addContent(content instructions.SourceContent, dest place) error {
	to := dest.path
	if dest.dir {
		to = path.Join(to, content.Path)
	}
	if err := i.parents(to); err != nil {
		return err
	}
	text := content.Data
	if content.Expand {
		var err error
		if text, err = i.stage.run.file.expandText(text, i.stage.values()); err != nil {
			return fmt.Errorf("heredoc %s: %w", content.Path, err)
		}
	}
	header := &tar.Header{Name: to, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)), Format: tar.FormatPAX}
	i.owner.apply(header)
	i.insert(&item{name: to, data: []byte(text), header: header})
	return nil
}

// parents takes in the directories above a name that are missing.
func (i *items) parents(name string) error {
	for _, dir := range above(name) {
		if i.names[dir] != nil {
			continue
		}
		_, err := os.Lstat(filepath.Join(i.stage.root(), dir))
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		header := &tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatPAX}
		i.owner.own(header)
		i.insert(&item{name: dir, header: header})
	}
	return nil
}

// above are the directories above a name, the highest first: "a" and "a/b" of "a/b/c".
func above(name string) []string {
	var list []string
	for i, r := range name {
		if r == '/' && i > 0 && name[:i] != "." {
			list = append(list, name[:i])
		}
	}
	return list
}

// conflicts refuses to put a file where a directory is, or the other way round: Docker does too.
func (i *items) conflicts() error {
	for _, one := range i.list {
		info, err := os.Lstat(filepath.Join(i.stage.root(), one.name))
		if err != nil {
			continue
		}
		isDir := one.header.Typeflag == tar.TypeDir
		if info.IsDir() && !isDir {
			return fmt.Errorf("/%s is a directory, which a file cannot replace", one.name)
		}
		if isDir && !info.IsDir() {
			return fmt.Errorf("/%s is no directory, and a directory cannot replace it", one.name)
		}
	}
	return nil
}

// digest is that of all that is written but times.
func (i *items) digest() (string, error) {
	parts := make([]any, 0, len(i.list))
	for _, one := range i.list {
		content := ""
		if one.header.Typeflag == tar.TypeReg {
			var err error
			if content, err = one.hash(); err != nil {
				return "", err
			}
		}
		h := one.header
		parts = append(parts, []any{one.name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.Devmajor, h.Devminor, content})
	}
	return keyOf(parts...), nil
}

func (one *item) hash() (string, error) {
	if one.at == "" {
		return keyOf(string(one.data)), nil
	}
	return hashFile(one.at)
}

// write writes the layer.
func (i *items) write(ctx context.Context, l *layerWriter) error {
	for _, one := range i.list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := one.write(l); err != nil {
			return fmt.Errorf("copy to /%s: %w", one.name, err)
		}
	}
	return nil
}

func (one *item) write(l *layerWriter) error {
	if err := l.WriteHeader(one.header); err != nil {
		return err
	}
	if one.header.Typeflag != tar.TypeReg {
		return nil
	}
	if one.at == "" {
		_, err := l.Write(one.data)
		return err
	}
	file, err := os.Open(one.at)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // read only
	_, err = io.CopyN(l, file, one.header.Size)
	return err
}

// ownership is what --chown and --chmod ask for.
type ownership struct {
	chown    bool
	uid, gid int
	chmod    bool
	mode     int64
}

// ownership reads --chown and --chmod; names are those of the stage's own accounts.
func (s *stage) ownership(chown, chmod string) (o ownership, err error) {
	if chown != "" {
		o.chown = true
		if o.uid, o.gid, err = (&tree{root: s.root()}).accounts(chown); err != nil {
			return o, fmt.Errorf("--chown=%s: %w", chown, err)
		}
	}
	if chmod != "" {
		o.chmod = true
		if o.mode, err = strconv.ParseInt(chmod, 8, 32); err != nil || o.mode < 0 || o.mode > 0o7777 {
			return o, fmt.Errorf("--chmod=%s: use an octal number such as 0644", chmod)
		}
	}
	return o, nil
}

// own sets the owner of something that is made on the way.
func (o ownership) own(header *tar.Header) {
	if o.chown {
		header.Uid, header.Gid = o.uid, o.gid
	}
}

func (o ownership) apply(header *tar.Header) {
	o.own(header)
	if o.chmod && slices.Contains([]byte{tar.TypeReg, tar.TypeDir, tar.TypeLink}, header.Typeflag) {
		header.Mode = o.mode
	}
}
