package jobs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// registryAddress is that of the images in the jobs' files.
const registryAddress = "127.0.0.1:5000"

// archive is the image of busybox as `docker save` writes it, in the tests' directory.
const archive = "busybox.tar"

func startRegistry() (io.Closer, error) {
	listener, err := net.Listen("tcp", registryAddress)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	go func() { _ = server.Serve(listener) }() // ends with Close
	return server, nil
}

// libraries are the packages that every image of a program has below it.
func libraries(pkg string) bool {
	return regexp.MustCompile(`^(lib|zlib1g|gcc-.*-base|base-files|busybox)`).MatchString(pkg) && !regexp.MustCompile(`perl|^libpam|^libaudit|^libsem|^libdb`).MatchString(pkg)
}

// makeImages makes an image of redis, of nginx and of busybox.
func makeImages(dir string) error {
	packages, err := setting("FRESHET_PACKAGES")
	if err != nil {
		return err
	}
	users := fileOf("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nwww-data:x:33:33::/var/www:/bin/false\nredis:x:999:999::/data:/bin/false\n")
	groups := fileOf("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\nredis:x:999:\n")
	own := []entry{users, groups, dirOf("tmp", 0o1777, 0), dirOf("root", 0o700, 0), dirOf("run", 0o755, 0), dirOf("data", 0o755, 999)}
	for _, applet := range strings.Fields("sh cat echo env hostname httpd id kill ls nc printf ps sleep stty tail touch wget") {
		own = append(own, linkTo("bin/"+applet, "/bin/busybox"))
	}
	own = append(own, linkTo("var/log/nginx/access.log", "/dev/stdout"), linkTo("var/log/nginx/error.log", "/dev/stderr"))
	for _, image := range []struct {
		reference string
		holds     func(pkg string) bool
		config    v1.Config
	}{
		{"busybox:1", func(pkg string) bool { return pkg == "busybox-static" }, v1.Config{Cmd: []string{"sh"}}},
		{"redis:7", func(pkg string) bool { return libraries(pkg) || strings.HasPrefix(pkg, "redis") }, v1.Config{
			Cmd: []string{"redis-server"}, User: "redis", WorkingDir: "/data",
		}},
		{"nginx:1", func(pkg string) bool { return libraries(pkg) || strings.HasPrefix(pkg, "nginx") }, v1.Config{
			Entrypoint: []string{"nginx"}, Cmd: []string{"-g", "daemon off;"}, StopSignal: "SIGQUIT",
		}},
	} {
		made, err := makeImage(packages, image.holds, own, image.config)
		if err != nil {
			return fmt.Errorf("%s: %w", image.reference, err)
		}
		tag, err := name.NewTag(registryAddress + "/" + image.reference)
		if err != nil {
			return err
		}
		if err := remote.Write(tag, made); err != nil {
			return fmt.Errorf("push %s: %w", tag, err)
		}
		if image.reference == "busybox:1" {
			if err := tarball.WriteToFile(filepath.Join(dir, archive), tag, made); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeImage makes a layer of the libraries, one of what needs them, and one of own files.
func makeImage(packages string, holds func(pkg string) bool, own []entry, config v1.Config) (v1.Image, error) {
	files, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil {
		return nil, err
	}
	var below, above []string
	for _, file := range files {
		pkg, _, _ := strings.Cut(filepath.Base(file), "_")
		switch {
		case holds(pkg) && libraries(pkg):
			below = append(below, file)
		case holds(pkg):
			above = append(above, file)
		}
	}
	if len(below) == 0 {
		return nil, fmt.Errorf("%s has not its packages", packages)
	}
	image := empty.Image
	for _, layer := range []func(*tar.Writer) error{packed(below), packed(above), written(own)} {
		if image, err = addLayer(image, layer); err != nil {
			return nil, err
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Config, file.Architecture, file.OS = config, runtime.GOARCH, "linux"
	return mutate.ConfigFile(image, file)
}

func addLayer(image v1.Image, write func(*tar.Writer) error) (v1.Image, error) {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	if err := errors.Join(write(w), w.Close()); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data.Bytes())), nil },
		tarball.WithCompressionLevel(1), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(image, layer)
}

// packed writes what is in the packages. A directory of several is written once.
func packed(files []string) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		seen := make(map[string]bool)
		for _, file := range files {
			out, err := exec.Command("dpkg-deb", "--fsys-tarfile", file).Output()
			if err != nil {
				return fmt.Errorf("unpack %s: %w", file, err)
			}
			if err := copyEntries(w, tar.NewReader(bytes.NewReader(out)), seen); err != nil {
				return fmt.Errorf("unpack %s: %w", file, err)
			}
		}
		return nil
	}
}

func copyEntries(w *tar.Writer, from *tar.Reader, seen map[string]bool) error {
	for {
		header, err := from.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if seen[header.Name] || strings.HasPrefix(header.Name, "./usr/share/doc/") {
			continue
		}
		seen[header.Name] = true
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(w, from); err != nil {
			return err
		}
	}
}

// entry is one of an image's own files.
type entry struct {
	header  tar.Header
	content string
}

func fileOf(path string, mode int64, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: int64(len(content))}, content}
}

func dirOf(path string, mode int64, owner int) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: mode, Uid: owner, Gid: owner}, ""}
}

func linkTo(path, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: target, Mode: 0o777}, ""}
}

func written(entries []entry) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		for _, e := range slices.Clone(entries) {
			if err := w.WriteHeader(&e.header); err != nil {
				return err
			}
			if _, err := io.WriteString(w, e.content); err != nil {
				return err
			}
		}
		return nil
	}
}
