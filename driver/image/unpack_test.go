package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/image"
)

// root mounts an image of the layers, the lowest first.
func root(t testing.TB, layers ...[]entry) string {
	t.Helper()
	list := make([]v1.Layer, len(layers))
	for i, entries := range layers {
		list[i] = layerOf(t, compression.GZip, entries...)
	}
	return get(t, openStore(t, image.Config{}), startRegistry(t).push("app:1", imageOf(t, v1.Config{}, list...))).Root
}

func TestLayersHideWhatTheyRemove(t *testing.T) {
	mounted := root(t,
		[]entry{
			dir("d", 0o755), file("d/kept", "1"), file("d/removed", "1"), file("d/changed", "1"), dir("d/sub", 0o755), file("d/sub/x", "1"),
			dir("opaque", 0o755), file("opaque/old", "1"), dir("again", 0o755), file("again/old", "1"), file("plain", "1"),
			dir("later", 0o755), file("later/old", "1"), file("replaced", "1"),
		},
		[]entry{
			file("d/.wh.removed", ""), file("d/changed", "2"), file("d/.wh.sub", ""), file("d/.wh.never-was", ""),
			dir("opaque", 0o755), file("opaque/.wh..wh..opq", ""), file("opaque/new", "2"), file("opaque/.wh.old", ""),
			file(".wh.again", ""), dir("again", 0o755), file("again/new", "2"), dir("plain", 0o755), file("plain/below", "2"),
			dir("later", 0o755), file("later/new", "2"), file(".wh.later", ""), file("replaced", "2"), file(".wh.replaced", ""),
			file(".wh..wh.plnk", ""),
			{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}},
		},
	)
	var got []string
	err := filepath.WalkDir(mounted, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			got = append(got, strings.TrimPrefix(path, mounted+"/"))
		}
		return err
	})
	want := "again/new d/changed d/kept later/new opaque/new plain/below replaced"
	if err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q, %v", got, want, err)
	}
	if changed := read(t, mounted, "d/changed"); changed != "2" {
		t.Errorf("changed is %q", changed)
	}
}

func TestFilesAreWhatTheyWere(t *testing.T) {
	mounted := root(t, []entry{
		{Header: tar.Header{Name: "su", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 0, Gid: 5}, text: "program"},
		{Header: tar.Header{Name: "mine", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 1000, Gid: 1001, PAXRecords: map[string]string{
			"SCHILY.xattr.user.note": "hello", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"SCHILY.xattr.security.selinux": "of another host", "SCHILY.xattr.trusted.overlay.opaque": "y",
		}}, text: "x"},
		link(tar.TypeLink, "hard", "mine"), link(tar.TypeLink, "dir/hard", "/su"), link(tar.TypeSymlink, "soft", "/etc/passwd"),
		{Header: tar.Header{Name: "tty", Typeflag: tar.TypeChar, Mode: 0o620, Devmajor: 5, Devminor: 0}},
		{Header: tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600}},
		dir("sticky", 0o1777),
	})
	stat := func(name string) (s unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(filepath.Join(mounted, name), &s); err != nil {
			t.Error(err)
		}
		return s
	}
	for name, mode := range map[string]uint32{
		"su": unix.S_IFREG | 0o4755, "mine": unix.S_IFREG | 0o640, "tty": unix.S_IFCHR | 0o620, "pipe": unix.S_IFIFO | 0o600, "sticky": unix.S_IFDIR | 0o1777,
	} {
		if got := stat(name).Mode; got != mode {
			t.Errorf("%s has the mode %o, want %o", name, got, mode)
		}
	}
	if s := stat("mine"); s.Uid != 1000 || s.Gid != 1001 || s.Nlink != 2 || stat("hard").Ino != s.Ino || stat("dir/hard").Ino != stat("su").Ino {
		t.Errorf("mine: %+v, hard: %+v", s, stat("hard"))
	}
	if s := stat("tty"); s.Rdev != unix.Mkdev(5, 0) {
		t.Errorf("tty is device %x", s.Rdev)
	}
	if to, err := os.Readlink(filepath.Join(mounted, "soft")); err != nil || to != "/etc/passwd" {
		t.Errorf("soft leads to %q, %v", to, err)
	}
	for name, want := range map[string]string{"user.note": "hello", "security.capability": "\x01\x00\x00\x02\x00\x04", "security.selinux": ""} {
		value := make([]byte, 100)
		n, err := unix.Lgetxattr(filepath.Join(mounted, "mine"), name, value)
		if got := string(value[:max(n, 0)]); !strings.HasPrefix(got, want) || (want == "") != (err != nil) {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if _, err := os.OpenFile(filepath.Join(mounted, "tty"), os.O_RDWR, 0); !errors.Is(err, unix.EACCES) {
		t.Errorf("a device of an image could be opened on the host: %v", err)
	}
	if err := os.WriteFile(filepath.Join(mounted, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("the root could be written to: %v", err)
	}
}

// TestDirectoriesKeepTheirOwners: a layer with entries below /tmp, /srv and /a/b, and none for them.
func TestDirectoriesKeepTheirOwners(t *testing.T) {
	owned := func(name string, mode int64, uid int) entry {
		e := dir(name, mode)
		e.Uid = uid
		return e
	}
	mounted := root(t,
		[]entry{
			owned(".", 0o711, 7), dir("tmp", 0o1777), owned("srv", 0o750, 33), owned("gone", 0o700, 9), owned("a", 0o701, 1), owned("a/b", 0o702, 2),
			{Header: tar.Header{Name: "marked", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "hi"}}},
		},
		[]entry{file("tmp/x", ""), file("marked/x", ""), file(".wh.gone", "")},
		[]entry{file("tmp/y", ""), file("srv/x", ""), file("gone/x", ""), file("a/b/x", ""), file("own/x", "")},
	)
	for name, want := range map[string]string{
		".": "711 7", "tmp": "1777 0", "srv": "750 33", "gone": "755 0", "a": "701 1", "a/b": "702 2", "own": "755 0", "marked": "755 0",
	} {
		var s unix.Stat_t
		if err := unix.Lstat(filepath.Join(mounted, name), &s); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprintf("%o %d", s.Mode&^unix.S_IFMT, s.Uid); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	value := make([]byte, 10)
	if n, err := unix.Lgetxattr(filepath.Join(mounted, "marked"), "user.note", value); err != nil || string(value[:n]) != "hi" {
		t.Errorf("marked: %q, %v", value[:max(n, 0)], err)
	}
	for _, name := range []string{"tmp/x", "tmp/y", "srv/x", "gone/x", "a/b/x", "own/x", "marked/x"} {
		if !exists(filepath.Join(mounted, name)) {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestTallImages(t *testing.T) {
	layers := make([][]entry, 230)
	for i := range layers {
		layers[i] = []entry{file(fmt.Sprint("f", i), fmt.Sprint(i)), file("last", fmt.Sprint(i))}
		if i > 0 && i%2 == 0 {
			layers[i] = append(layers[i], file(fmt.Sprint(".wh.f", i-1), ""))
		}
	}
	layers = append(layers, layers[3]) // the same layer twice
	mounted := root(t, layers...)
	if got := read(t, mounted, "last"); got != "3" {
		t.Errorf("the top layer is %s", got)
	}
	for i := range 230 {
		if got, want := exists(filepath.Join(mounted, fmt.Sprint("f", i))), i%2 == 0 || i == 229 || i == 3; got != want {
			t.Errorf("f%d: there %v, want %v", i, got, want)
		}
	}
}

// TestHostileLayers: nothing appears outside of the layer, whatever it holds.
func TestHostileLayers(t *testing.T) {
	for what, try := range map[string]struct {
		entries []entry
		refused bool
	}{
		"name above the root":        {[]entry{file("../escaped", "x")}, true},
		"name far above the root":    {[]entry{file("a/../../../../../../../../tmp/escaped", "x")}, true},
		"absolute name":              {[]entry{file("/escaped", "x")}, false},
		"absolute name above":        {[]entry{file("/../escaped", "x")}, true},
		"through a link":             {[]entry{link(tar.TypeSymlink, "out", "../../../.."), file("out/escaped", "x")}, false},
		"through an absolute link":   {[]entry{link(tar.TypeSymlink, "out", "/tmp"), file("out/escaped", "x")}, false},
		"through two links":          {[]entry{link(tar.TypeSymlink, "a", ".."), link(tar.TypeSymlink, "b", "a/.."), file("b/escaped", "x")}, false},
		"below a folder beside it":   {[]entry{link(tar.TypeSymlink, "out", "../../../.."), file("out/private/x", "x")}, false},
		"over a link":                {[]entry{link(tar.TypeSymlink, "out", "../../../../escaped"), file("out", "x")}, false},
		"a directory over a link":    {[]entry{link(tar.TypeSymlink, "out", "../../../.."), dir("out", 0o700), file("out/escaped", "x")}, false},
		"hard link out":              {[]entry{link(tar.TypeLink, "in", "../../../../victim")}, true},
		"hard link out, absolute":    {[]entry{link(tar.TypeLink, "in", "/../victim")}, true},
		"hard link through a link":   {[]entry{link(tar.TypeSymlink, "out", "../../../.."), link(tar.TypeLink, "in", "out/victim")}, true},
		"removes its parent":         {[]entry{file(".wh...", "")}, true},
		"removes its parent, deeper": {[]entry{dir("a", 0o755), file("a/.wh...", "")}, true},
		"removes itself":             {[]entry{file(".wh..", "")}, true},
		"removes nothing":            {[]entry{file(".wh.", "")}, true},
		"removes through a link":     {[]entry{link(tar.TypeSymlink, "out", "../../../.."), file("out/.wh.victim", "")}, false},
		"the root is a link":         {[]entry{link(tar.TypeSymlink, ".", "/tmp")}, true},
		"the root is a file":         {[]entry{file(".", "x")}, true},
	} {
		t.Run(what, func(t *testing.T) {
			outside := t.TempDir()
			if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("v"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(outside, "private"), 0o700); err != nil {
				t.Fatal(err)
			}
			store := openStore(t, image.Config{Dir: filepath.Join(outside, "store")})
			reference := startRegistry(t).push("app:1", imageOf(t, v1.Config{}, layerOf(t, compression.GZip, try.entries...)))
			_, err := store.Image(t.Context(), image.Request{Task: "task", Reference: reference})
			if (err != nil) != try.refused {
				t.Errorf("got %v", err)
			}
			unmountAll(t, filepath.Join(outside, "store"))
			check(t, outside)
			if info, err := os.Stat(filepath.Join(outside, "private")); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("the private folder: %v, %v", info, err)
			}
			if exists("/tmp/escaped") {
				t.Error("it got out")
			}
		})
	}
}

// check tells what is outside of a store's layers that should not be, or is missing.
func check(t testing.TB, outside string) {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(filepath.Join(outside, "victim"), &s); err != nil || s.Nlink != 1 || s.Size != 1 {
		t.Errorf("the victim: %+v, %v", s, err)
	}
	for _, pattern := range []string{"*", "store/*", "store/layers/*"} {
		found, err := filepath.Glob(filepath.Join(outside, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			switch base := filepath.Base(path); {
			case pattern == "*" && (base == "victim" || base == "store" || base == "private"),
				pattern == "store/*" && strings.Contains("layers images refs mounts holds locks trash", base),
				pattern == "store/layers/*" && len(base) == 64:
			default:
				t.Errorf("%s is there", path)
			}
		}
	}
}

// FuzzUnpack gives the store layers of any bytes: nothing appears outside, and nothing half is left.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, dir("a", 0o755), file("a/b", "text"), link(tar.TypeLink, "c", "a/b"), file(".wh.d", ""), link(tar.TypeSymlink, "e", "/a")))
	f.Add(tarOf(f, link(tar.TypeSymlink, "a", ".."), file("a/b", "text"), file("a/.wh.c", "")))
	f.Add(bytes.Repeat([]byte{0}, 1024))
	f.Fuzz(func(t *testing.T, data []byte) {
		outside := t.TempDir()
		if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("v"), 0o600); err != nil {
			t.Fatal(err)
		}
		store := openStore(t, image.Config{Dir: filepath.Join(outside, "store"), MaxBytes: 1 << 20})
		layout := writeLayout(t, imageOf(t, v1.Config{}, static.NewLayer(data, types.OCIUncompressedLayer)))
		_, err := store.Image(t.Context(), image.Request{Task: "task", Reference: "oci:" + layout})
		unmountAll(t, filepath.Join(outside, "store"))
		check(t, outside)
		if left, _ := os.ReadDir(filepath.Join(outside, "store", "layers")); err != nil && len(left) != 0 {
			t.Errorf("after %v there is %v", err, left)
		}
	})
}
