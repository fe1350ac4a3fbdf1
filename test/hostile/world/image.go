package world

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// busybox is where Debian's package busybox-static puts its program.
const busybox = "/bin/busybox"

// Image makes a docker archive of busybox, its commands, and programs by their path in the image, and returns its reference.
func Image(t testing.TB, command []string, programs map[string]string) string {
	t.Helper()
	var layer bytes.Buffer
	out := tar.NewWriter(&layer)
	for _, dir := range []string{"bin/", "etc/", "tmp/", "root/"} {
		check(t, out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o1777}))
	}
	add(t, out, "bin/busybox", read(t, busybox), 0o755)
	for _, applet := range []string{"sh", "cat", "sort", "sleep", "env", "echo", "ls", "true", "false", "kill", "head", "yes", "dd"} {
		check(t, out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}))
	}
	add(t, out, "etc/passwd", []byte("root:x:0:0::/root:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n"), 0o644)
	add(t, out, "etc/group", []byte("root:x:0:\nworker:x:1000:\n"), 0o644)
	for path, program := range programs {
		add(t, out, path, read(t, program), 0o755)
	}
	check(t, out.Close())
	return archive(t, command, layer.Bytes())
}

func archive(t testing.TB, command []string, layer []byte) string {
	t.Helper()
	made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	check(t, err)
	image, err := mutate.AppendLayers(empty.Image, made)
	check(t, err)
	config, err := image.ConfigFile()
	check(t, err)
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Cmd: command, Env: []string{"PATH=/bin"}}
	image, err = mutate.ConfigFile(image, config)
	check(t, err)
	tag, err := name.NewTag("probe:1")
	check(t, err)
	path := filepath.Join(t.TempDir(), "image.tar")
	check(t, tarball.WriteToFile(path, tag, image))
	return "docker-archive:" + path
}

func add(t testing.TB, out *tar.Writer, name string, data []byte, mode int64) {
	t.Helper()
	check(t, out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}))
	_, err := out.Write(data)
	check(t, err)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (busybox is in Debian's package busybox-static)", err)
	}
	return data
}

// Build builds a static program of this repository.
func Build(t testing.TB, dir string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", dir, err, out)
	}
	return program
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
