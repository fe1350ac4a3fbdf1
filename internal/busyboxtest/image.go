package busyboxtest

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image writes an image with a shell, two users and a working directory, as `docker save` does.
func Image(t testing.TB, dir string) string {
	t.Helper()
	box, err := os.ReadFile(Path(t))
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(Path(t), "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	out := tar.NewWriter(&layer)
	add := func(header tar.Header, data []byte) {
		header.Size = int64(len(data))
		if err := out.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]int64{"bin": 0o755, "etc": 0o755, "home": 0o777, "tmp": 0o1777} {
		add(tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, box)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nweb:x:1000:\n"))
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.DockerManifestSchema2), static.NewLayer(layer.Bytes(), types.DockerUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	made, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	made.OS, made.Architecture = "linux", runtime.GOARCH
	made.Config = v1.Config{Env: []string{"PATH=/bin", "FROM_IMAGE=image", "OVER=image"}, WorkingDir: "/home", Cmd: []string{"/bin/sh", "-c", "echo of the image"}}
	if img, err = mutate.ConfigFile(img, made); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("box:1")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "box.tar")
	if err := tarball.WriteToFile(path, tag, img); err != nil {
		t.Fatal(err)
	}
	return path
}
