// Package buildcontext packs the files that a Dockerfile copies.
package buildcontext

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
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

const ignoreFile = ".dockerignore"

// Pack writes the files of a folder as a tar stream, compressed with gzip: those that its .dockerignore does not leave out, and, unless
// only is nil, just what lies at its paths. The same files give the same bytes.
func Pack(ctx context.Context, dir string, only []string, to io.Writer) error {
	ignored, err := readIgnore(dir)
	if err != nil {
		return err
	}
	compressed, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if leadsElsewhere(dir, only) {
		only = nil
	}
	p := &packer{ctx: ctx, dir: dir, ignored: ignored, only: only, archive: tar.NewWriter(compressed)}
	err = filepath.WalkDir(dir, p.visit)
	if err = errors.Join(err, p.archive.Close(), compressed.Close()); err != nil {
		return fmt.Errorf("pack build context %s: %w", dir, err)
	}
	return nil
}

// leadsElsewhere tells whether one of the paths is a link, or below one: what it leads to is needed too.
func leadsElsewhere(dir string, paths []string) bool {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return true
	}
	for _, name := range paths {
		at, err := filepath.EvalSymlinks(filepath.Join(real, name))
		if err == nil && at != filepath.Join(real, name) {
			return true
		}
	}
	return false
}

func readIgnore(dir string) (*patternmatcher.PatternMatcher, error) {
	file, err := os.Open(filepath.Join(dir, ignoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return patternmatcher.New(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ignoreFile, err)
	}
	defer func() { _ = file.Close() }() // read only
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ignoreFile, err)
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ignoreFile, err)
	}
	return matcher, nil
}

// packer packs one folder.
type packer struct {
	ctx     context.Context //nolint:containedctx // lives for one walk
	dir     string
	ignored *patternmatcher.PatternMatcher
	only    []string
	archive *tar.Writer
}

func (p *packer) visit(file string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	name, err := filepath.Rel(p.dir, file)
	if err != nil || name == "." {
		return err
	}
	name = filepath.ToSlash(name)
	within, above := p.asked(name)
	if !within && !above {
		return skip(entry)
	}
	if name != ignoreFile { // the builder reads it too
		hidden, err := p.ignored.MatchesOrParentMatches(name)
		if err != nil {
			return err
		}
		if hidden && !p.ignored.Exclusions() {
			return skip(entry)
		}
		if hidden {
			return nil
		}
	}
	if !within && !entry.IsDir() {
		return nil
	}
	return p.add(file, name, entry)
}

func skip(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// asked tells whether a path is asked for, and whether something below it may be. Patterns are those of COPY.
func (p *packer) asked(name string) (within, above bool) {
	if p.only == nil || name == ignoreFile {
		return true, true
	}
	for _, pattern := range p.only {
		if pattern == "." {
			return true, true
		}
		for at := name; at != "."; at = path.Dir(at) {
			if matches, err := path.Match(pattern, at); matches && err == nil {
				return true, true
			}
		}
		for at := path.Dir(pattern); at != "."; at = path.Dir(at) {
			if matches, err := path.Match(at, name); matches && err == nil {
				above = true
			}
		}
	}
	return false, above
}

// add writes one file. Its owner is nobody's matter: what is copied belongs to root.
func (p *packer) add(file, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(file); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return fmt.Errorf("%s: %w: leave it out by %s", name, err, ignoreFile)
	}
	*header = tar.Header{
		Typeflag: header.Typeflag, Name: name, Linkname: header.Linkname, Size: header.Size, Mode: header.Mode,
		ModTime: header.ModTime.Truncate(time.Second), Format: tar.FormatPAX,
	}
	if header.Typeflag == tar.TypeDir {
		header.ModTime = time.Unix(0, 0) // it changes with files that are left out
	}
	if err := p.archive.WriteHeader(header); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	_, err = io.Copy(p.archive, in)
	return err
}
