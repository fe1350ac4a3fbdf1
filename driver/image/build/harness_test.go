package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/image/build"
	"github.com/freshet-dev/freshet/internal/busyboxtest"
)

// node is a machine that builds images.
type node struct {
	*build.Builder
	images *image.Store
	base   string // a reference
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	images, err := image.OpenStore(image.Config{Dir: filepath.Join(dir, "images")}, zerolog.Nop())
	must(t, err)
	t.Cleanup(func() {
		must(t, images.Sweep(nil))
		must(t, images.Collect(context.Background())) // unmounts
		images.Close()
	})
	n := &node{images: images, base: writeBase(t, dir)}
	n.Builder = &build.Builder{
		Images: images, Dir: filepath.Join(dir, "builds"), Log: zerolog.Nop(),
		Runner: &build.Sandboxes{
			Runsc: program(t, "FRESHET_RUNSC", ""), Init: program(t, "FRESHET_BIN", "freshet-init"), SharedDir: filepath.Join(dir, "shared"),
			Log: zerolog.Nop(),
		},
	}
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(dir, "shared", "null-netns"), syscall.MNT_DETACH) }) // gVisor's own
	return n
}

func program(t *testing.T, variable, name string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s must be set: use `make test`", variable)
	}
	return filepath.Join(path, name)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeBase makes an image with a shell, its tools and a few accounts.
func writeBase(t *testing.T, dir string) string {
	t.Helper()
	shell := busyboxtest.Path(t)
	tools, err := exec.Command(shell, "--list").Output()
	must(t, err)
	program, err := os.ReadFile(shell)
	must(t, err)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	put := func(header *tar.Header, content string) {
		header.Size = int64(len(content))
		must(t, w.WriteHeader(header))
		_, err := io.WriteString(w, content)
		must(t, err)
	}
	for _, name := range []string{"bin", "etc", "data", "data/deep", "root", "usr"} {
		put(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, "")
	}
	put(&tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 0o1777}, "")
	put(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, string(program))
	for tool := range strings.FieldsSeq(string(tools)) {
		if tool != "busybox" {
			put(&tar.Header{Name: "bin/" + tool, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, "")
		}
	}
	put(&tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1001::/data:/bin/sh\n")
	put(&tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, "root:x:0:\nworker:x:1001:\nstaff:x:50:\n")
	put(&tar.Header{Name: "data/one", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 1000, Gid: 50}, "1")
	put(&tar.Header{Name: "data/deep/two", Typeflag: tar.TypeReg, Mode: 0o600}, "2")
	put(&tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/data"}, "")
	must(t, w.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil })
	must(t, err)
	img, err := mutate.AppendLayers(empty.Image, layer)
	must(t, err)
	img, err = mutate.Config(img, v1.Config{Env: []string{"PATH=/bin", "FROM_BASE=yes"}, Cmd: []string{"/bin/sh"}, WorkingDir: "/"})
	must(t, err)
	tag, err := name.NewTag("base:1")
	must(t, err)
	path := filepath.Join(dir, "base.tar")
	must(t, tarball.WriteToFile(path, tag, img))
	return "docker-archive:" + path
}

// built is one built image.
type built struct {
	*build.Result
	mu     sync.Mutex
	events []build.Event
}

// output is what the steps printed.
func (b *built) output() string {
	var lines []string
	for _, event := range b.events {
		if event.Kind == build.StepOutput {
			lines = append(lines, event.Text)
		}
	}
	return strings.Join(lines, "\n")
}

// build builds a Dockerfile, whose BASE is the base image.
func (n *node) build(t *testing.T, dockerfile string, change func(*build.Request)) (*built, error) {
	t.Helper()
	b := &built{}
	req := build.Request{
		Task: t.Name(), Dockerfile: []byte("ARG BASE\n" + dockerfile), HostPaths: true, Args: map[string]string{"BASE": n.base},
		Progress: func(event build.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, event)
		},
	}
	if change != nil {
		change(&req)
	}
	var err error
	b.Result, err = n.Build(t.Context(), req)
	return b, err
}

// writeContext makes a directory: "name=content", "name->target", "name:0755=content", "dir/".
func writeContext(t *testing.T, files []string) string {
	t.Helper()
	dir := t.TempDir()
	for _, text := range files {
		name, content, _ := strings.Cut(text, "=")
		name, target, isLink := strings.Cut(name, "->")
		name, mode, hasMode := strings.Cut(name, ":")
		at := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(at, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		if isLink {
			must(t, os.Symlink(target, at))
			continue
		}
		must(t, os.WriteFile(at, []byte(content), 0o644))
		if hasMode {
			var bits uint32
			_, err := fmt.Sscanf(mode, "%o", &bits)
			must(t, err)
			must(t, syscall.Chmod(at, bits))
		}
	}
	return dir
}

var wantPattern = regexp.MustCompile(`^(!?)([^=:@\[>]+?)(?:(=|:|@|\[|->)((?s:.*)))?$`)

// check holds the image to what a case says of it: "path=content", "path:0644", "path@1000:50", "path->target", "path/" for a
// directory, "path[a b]" for what is in one, "!path" for what is not there, or an instruction with its value.
func check(t *testing.T, b *built, want string) {
	t.Helper()
	if instruction, value, ok := strings.Cut(want, " "); ok && instruction == strings.ToUpper(instruction) && !strings.ContainsAny(instruction, "=/") {
		if got := configOf(b.Config, instruction); !slices.Contains(got, value) {
			t.Errorf("%s is %q, want %q", instruction, got, value)
		}
		return
	}
	match := wantPattern.FindStringSubmatch(want)
	if match == nil {
		t.Fatalf("cannot read %q", want)
	}
	absent, path, kind, value := match[1], match[2], match[3], match[4]
	at := filepath.Join(b.Image.Root, path)
	info, err := os.Lstat(at)
	if absent != "" {
		if err == nil {
			t.Errorf("%s is there", path)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	stat := info.Sys().(*syscall.Stat_t)
	got := ""
	switch kind {
	case "=":
		data, err := os.ReadFile(at)
		must(t, err)
		got = string(data)
	case ":":
		got = fmt.Sprintf("%04o", stat.Mode&0o7777)
	case "@":
		got = fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
	case "->":
		got, err = os.Readlink(at)
		must(t, err)
	case "[":
		entries, err := os.ReadDir(at)
		must(t, err)
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		got = strings.Join(names, " ") + "]"
	case "":
		if strings.HasSuffix(path, "/") && !info.IsDir() {
			t.Errorf("%s is no directory", path)
		}
		return
	}
	if got != value {
		t.Errorf("%s%s is %q, want %q", path, kind, got, value)
	}
}

func configOf(c build.Config, instruction string) []string {
	text := func(list []string) []string {
		data, _ := json.Marshal(list)
		return []string{string(data)}
	}
	switch instruction {
	case "ENV":
		return c.Env
	case "CMD":
		return text(c.Cmd)
	case "ENTRYPOINT":
		return text(c.Entrypoint)
	case "USER":
		return []string{c.User}
	case "WORKDIR":
		return []string{c.WorkingDir}
	case "EXPOSE":
		return c.ExposedPorts
	case "VOLUME":
		return c.Volumes
	case "STOPSIGNAL":
		return []string{c.StopSignal}
	case "SHELL":
		return text(c.Shell)
	case "LABEL":
		var list []string
		for name, value := range c.Labels {
			list = append(list, name+"="+value)
		}
		return list
	}
	return nil
}
