package volumes

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

func randomName() string { return rand.Text() }

// wrongWay tells of a path that a part of which is not what it would have to be: os.Root has no name for what leads out of it.
func wrongWay(err error) bool {
	return errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || strings.Contains(err.Error(), "escapes from parent")
}

// Pack writes a folder as a tar: files, folders and links, by their paths in it. What else there is, such as pipes, is left out.
func (t *Tree) Pack(folder string, out io.Writer) error {
	folder, err := CleanPath(folder)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(out)
	err = t.Walk(folder, true, func(e Entry) error { return t.pack(archive, folder, e) })
	if err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func (t *Tree) pack(archive *tar.Writer, folder string, e Entry) error {
	name := e.Path
	if folder != "." {
		name = strings.TrimPrefix(e.Path, folder+"/")
	}
	header := &tar.Header{Name: name, Mode: 0o755, ModTime: e.Modified, Format: tar.FormatPAX}
	switch e.Kind {
	case KindDir:
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
	case KindLink:
		target, err := t.root.Readlink(e.Path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed meanwhile
		}
		if err != nil {
			return mend(e.Path, err)
		}
		header.Typeflag, header.Linkname = tar.TypeSymlink, target
	case KindFile:
		return t.packFile(archive, header, e.Path)
	default:
		return nil
	}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func (t *Tree) packFile(archive *tar.Writer, header *tar.Header, name string) error {
	file, info, err := t.File(name)
	var gone *PathError
	if errors.As(err, &gone) {
		return nil // it is something else now
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // read only
	header.Typeflag, header.Size, header.Mode = tar.TypeReg, info.Size(), int64(info.Mode().Perm())
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	written, err := io.CopyN(archive, file, info.Size())
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: it became shorter, from %d to %d bytes, while it was read; try again", name, info.Size(), written)
	}
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

// Unpack stores what is in a tar below a folder, and returns how many files. Links are stored as they are; none is followed out of the
// tree. It refuses archives with anything else than files, folders and links.
func (t *Tree) Unpack(folder string, in io.Reader) (files int, err error) {
	if folder, err = CleanPath(folder); err != nil {
		return 0, err
	}
	if err := t.Mkdir(folder); err != nil {
		return 0, err
	}
	archive := tar.NewReader(in)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return files, &PathError{folder, fmt.Sprintf("the archive cannot be read after %d files: %v", files, err)}
		}
		if err := t.unpack(folder, header, archive); err != nil {
			return files, err
		}
		if header.Typeflag == tar.TypeReg {
			files++
		}
	}
}

func (t *Tree) unpack(folder string, header *tar.Header, in io.Reader) error {
	name, err := CleanPath(strings.TrimPrefix(header.Name, "./"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(header.Name, "/") {
		return &PathError{header.Name, "the archive has an absolute path: make it of relative ones"}
	}
	name = path.Join(folder, name)
	switch header.Typeflag {
	case tar.TypeDir:
		return t.Mkdir(name)
	case tar.TypeReg:
		_, err := t.Put(name, header.FileInfo().Mode(), in)
		return err
	case tar.TypeSymlink:
		if err := t.Mkdir(path.Dir(name)); err != nil {
			return err
		}
		if info, err := t.root.Lstat(name); err == nil && !info.IsDir() {
			_ = t.root.Remove(name) // if that fails, the link does
		}
		return mendAny(name, t.root.Symlink(header.Linkname, name))
	}
	return &PathError{header.Name, fmt.Sprintf("the archive has an entry of type %q: use files, folders and symbolic links", header.Typeflag)}
}
