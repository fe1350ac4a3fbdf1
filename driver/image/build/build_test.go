package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/freshet-dev/freshet/driver/image/build"
)

const steps = `FROM $BASE
COPY a /
RUN cat /a >/b && date +%N >/when
RUN echo last >>/b
`

// TestNothingIsDoneTwice builds again: with the same files, with other times on them, with another first file, another last step.
func TestNothingIsDoneTwice(t *testing.T) {
	n := newNode(t)
	dir := writeContext(t, []string{"a=1"})
	in := func(req *build.Request) { req.Context = dir }
	first, err := n.build(t, steps, in)
	must(t, err)
	for _, again := range []struct {
		name       string
		dockerfile string
		before     func()
		cached     int
	}{
		{"same", steps, func() {}, 3},
		{"touched", steps, func() { must(t, os.Chtimes(filepath.Join(dir, "a"), time.Unix(1, 0), time.Unix(1, 0))) }, 3},
		{"another last step", strings.Replace(steps, "last", "another", 1), func() {}, 2},
		{"another name of a stage", strings.Replace(steps, "$BASE", "$BASE AS named", 1), func() {}, 3},
		{"another mode", steps, func() { must(t, os.Chmod(filepath.Join(dir, "a"), 0o600)) }, 0},
		{"another file", steps, func() { must(t, os.WriteFile(filepath.Join(dir, "a"), []byte("2"), 0o600)) }, 0},
	} {
		again.before()
		b, err := n.build(t, again.dockerfile, in)
		must(t, err)
		if b.Steps != 3 || b.Cached != again.cached {
			t.Errorf("%s: %d of %d steps were cached, want %d of 3", again.name, b.Cached, b.Steps, again.cached)
		}
		if same := b.Image.Content == first.Image.Content; same != (again.cached == 3) {
			t.Errorf("%s: the content is the same: %v", again.name, same)
		}
	}
	fresh, err := n.build(t, steps, func(req *build.Request) { req.Context, req.NoCache = dir, true })
	must(t, err)
	if fresh.Cached != 0 {
		t.Errorf("%d steps were cached though none may be", fresh.Cached)
	}
}

// TestArgumentsAndSecretsInKeys: an argument makes the steps that may see it others, a secret none.
func TestArgumentsAndSecretsInKeys(t *testing.T) {
	n := newNode(t)
	const dockerfile = "FROM $BASE\nRUN echo before >/f\nARG WHO\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S wc -c </run/secrets/s >>/f\n"
	build1 := func(who, secret string) *built {
		b, err := n.build(t, dockerfile, func(req *build.Request) {
			req.Args["WHO"], req.Secrets = who, map[string][]byte{"s": []byte(secret)}
		})
		must(t, err)
		return b
	}
	build1("me", "hunter2")
	if b := build1("me", "other-secret"); b.Cached != 2 {
		t.Errorf("with another secret %d steps were cached, want 2", b.Cached)
	}
	b := build1("you", "hunter2")
	if b.Cached != 1 {
		t.Errorf("with another argument %d steps were cached, want 1", b.Cached)
	}
	must(t, filepath.Walk(n.Dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("hunter2")) {
			t.Errorf("the secret is in %s", path)
		}
		return err
	}))
}

// TestStagesRunAtOnce has two stages wait for each other over a cache that they share.
func TestStagesRunAtOnce(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stage := func(name, mine, other string) string {
		return "FROM $BASE AS " + name + "\nRUN --mount=type=cache,target=/c touch /c/" + mine + "; while [ ! -e /c/" + other + " ]; do sleep 0.05; done; touch /" + mine + "\n"
	}
	dockerfile := "ARG BASE\n" + stage("one", "a", "b") + stage("two", "b", "a") + "FROM scratch\nCOPY --from=one /a /\nCOPY --from=two /b /\n"
	result, err := n.Build(ctx, build.Request{Task: t.Name(), Dockerfile: []byte(dockerfile), HostPaths: true, Args: map[string]string{"BASE": n.base}})
	must(t, err)
	check(t, &built{Result: result}, "/[a b]")
}

// TestStepsThatMisbehave end with an error that says why, and leave nothing behind.
func TestStepsThatMisbehave(t *testing.T) {
	n := newNode(t)
	n.DiskBytes = 64 << 20
	for _, c := range []struct {
		name, command, want string
		limit               time.Duration
	}{
		{"prints without end", "cat /dev/zero", "the step printed more than 64 MB", time.Minute},
		{"prints lines without end", "yes", "the step printed more than 1000000 lines", time.Minute},
		{"fills the disk", "dd if=/dev/zero of=/full bs=1M", "No space left on device", time.Minute},
		{"loops", "while :; do :; done", "the build took too long", 3 * time.Second},
		{"leaves something running", "sleep 1000 & exit 3", "code 3", time.Minute},
		{"kills everything", "kill -9 -1; kill -9 1", "the command", time.Minute},
		{"mounts", "mount -t proc proc /mnt", "the command exited with code", time.Minute},
		{"forks without end", "f() { f | f & }; f; sleep 1000", "the build took too long", 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), c.limit, errors.New("the build took too long"))
			defer cancel()
			_, err := n.Build(ctx, build.Request{
				Task: t.Name(), Dockerfile: []byte("ARG BASE\nFROM $BASE\nRUN " + c.command), HostPaths: true, Args: map[string]string{"BASE": n.base},
			})
			var fault *build.Error
			if !errors.As(err, &fault) || fault.Line != 3 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one of line 3 with %q", err, c.want)
			}
			parts, err := os.ReadDir(filepath.Join(n.Dir, "parts"))
			must(t, err)
			if len(parts) > 0 {
				t.Errorf("left behind: %v", parts)
			}
		})
	}
}

// TestStepThatLeavesSomethingRunningEnds: what it started in the background does not hold it up, and what it printed is there.
func TestStepThatLeavesSomethingRunningEnds(t *testing.T) {
	n := newNode(t)
	b, err := n.build(t, "FROM $BASE\nRUN sleep 1000 & echo done; touch /f", nil)
	must(t, err)
	check(t, b, "f=")
	if b.output() != "done" {
		t.Errorf("it printed %q", b.output())
	}
}

func archive(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	must(t, w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 5}))
	must(t, w.WriteHeader(&tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 5, Gid: 6, Size: 2}))
	_, err := w.Write([]byte("hi"))
	must(t, err)
	must(t, w.WriteHeader(&tar.Header{Name: "d/h", Typeflag: tar.TypeLink, Linkname: "d/f"}))
	must(t, w.WriteHeader(&tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "f"}))
	must(t, w.Close())
	return out.Bytes()
}

// TestAddUnpacks archives of the context, however they are compressed; COPY does not.
func TestAddUnpacks(t *testing.T) {
	n := newNode(t)
	compress := func(wrap func(io.Writer) (io.WriteCloser, error)) string {
		var out bytes.Buffer
		w, err := wrap(&out)
		must(t, err)
		_, err = w.Write(archive(t))
		must(t, errors.Join(err, w.Close()))
		return out.String()
	}
	dir := writeContext(t, []string{
		"plain.tar=" + string(archive(t)),
		"gz=" + compress(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"zst=" + compress(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"xz=" + compress(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		"text=no archive, but longer than one's magic",
	})
	b, err := n.build(t, "FROM scratch\nADD plain.tar /p\nADD gz /g/\nADD zst xz /zx/\nADD text /t\nADD --chown=9 gz /o\nCOPY gz /c", func(req *build.Request) { req.Context = dir })
	must(t, err)
	for _, want := range []string{
		"p/d/f=hi", "p/d:0700", "p/d@5:0", "p/d/f@5:6", "p/d/h=hi", "p/d/l->f", "g/d/f=hi", "zx/d/f=hi", "t=no archive, but longer than one's magic",
		"o/d/f@9:9", "c:0644",
	} {
		check(t, b, want)
	}
}

// TestAddFetches takes a file from an address, and holds it to its checksum.
func TestAddFetches(t *testing.T) {
	n := newNode(t)
	n.Fetch = func(_ context.Context, address string) (build.Download, error) {
		if !strings.HasSuffix(address, "/file.txt") {
			return build.Download{}, errors.New("404 Not Found")
		}
		return build.Download{ReadCloser: io.NopCloser(strings.NewReader("hello"))}, nil
	}
	const sum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	b, err := n.build(t, "FROM scratch\nADD https://example.test/file.txt /d/\nADD --checksum="+sum+" https://example.test/file.txt /f", nil)
	must(t, err)
	for _, want := range []string{"d/file.txt=hello", "d/file.txt:0600", "f=hello"} {
		check(t, b, want)
	}
	for dockerfile, want := range map[string]string{
		"ADD https://example.test/other /f": "fetch https://example.test/other: 404 Not Found",
		"ADD --checksum=" + strings.Replace(sum, "2cf", "000", 1) + " https://example.test/file.txt /f": "has the digest " + sum,
	} {
		if _, err := n.build(t, "FROM scratch\n"+dockerfile, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want one with %q", dockerfile, err, want)
		}
	}
}

// TestRemovedFilesAreWhiteouts of the OCI image specification in the layer, each of them: other programs read it too.
func TestRemovedFilesAreWhiteouts(t *testing.T) {
	n := newNode(t)
	if _, err := n.build(t, "FROM $BASE\nRUN rm /data/one /data/deep/two /link", nil); err != nil {
		t.Fatal(err)
	}
	layers, err := filepath.Glob(filepath.Join(n.Dir, "layers", "*.tar"))
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers %v, %v", layers, err)
	}
	file, err := os.Open(layers[0])
	must(t, err)
	defer func() { _ = file.Close() }()
	var files []string
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if header.Typeflag != tar.TypeDir {
			files = append(files, header.Name)
		}
	}
	slices.Sort(files)
	if got, want := strings.Join(files, " "), ".wh.link data/.wh.one data/deep/.wh.two"; got != want {
		t.Errorf("the layer has %s, want %s", got, want)
	}
}
