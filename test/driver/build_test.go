package driver

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/eventually"
)

// newBuilderNode starts a driver with a blob store of its own.
func newBuilderNode(t *testing.T, change func(*driver.Config)) *node {
	t.Helper()
	store := t.TempDir()
	return newNode(t, func(c *driver.Config) {
		c.Blobs = "file://" + store
		if change != nil {
			change(c)
		}
	})
}

// dockerfile is the config of a task that builds one, from the node's image, without a network.
func (n *node) dockerfile(text string, more ...string) string {
	return fmt.Sprintf("network_mode = \"none\"\nbuild {\n dockerfile = %q\n%s\n}", "FROM "+n.image+"\n"+text, strings.Join(more, "\n"))
}

// reference is what a build said its image is called.
func (task *task) reference(t *testing.T) string {
	t.Helper()
	said := regexp.MustCompile(`(?m)^image (freshet-image://sha256:[0-9a-f]{64})$`).FindStringSubmatch(task.read(t, "box.stdout.0"))
	if said == nil {
		t.Fatalf("it named no image: %s\n%s", task.read(t, "box.stdout.0"), task.read(t, "box.stderr.0"))
	}
	return said[1]
}

// build builds to the end and returns what the image is called.
func (n *node) build(t *testing.T, config string, change func(*drivers.TaskConfig)) (*task, string) {
	t.Helper()
	task, end := n.run(t, config, change)
	if !end.Successful() {
		t.Fatalf("ended with %+v: %s", end, task.read(t, "box.stderr.0"))
	}
	return task, task.reference(t)
}

// TestBuild builds from a folder of the task's directory, with an argument and secrets; runs the image; builds again.
func TestBuild(t *testing.T) {
	hub := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer hub.Close()
	pushed := strings.TrimPrefix(hub.URL, "http://") + "/team/web:1"
	n := newBuilderNode(t, func(c *driver.Config) { c.Images.Insecure = []string{strings.TrimPrefix(hub.URL, "http://")} })
	config := "network_mode = \"none\"\nbuild {\n context = \"local\"\n args { WHO = \"me\" }\n secrets { token = \"secrets/token\", other = \"env:OTHER\" }\n name = \"web:1\"\n push = \"" + pushed + "\"\n}"
	const steps = `
ARG WHO
ENV GREETING=hello
COPY said /said
RUN --mount=type=secret,id=token --mount=type=secret,id=other,env=OTHER echo "$GREETING $WHO" >>/said; wc -c </run/secrets/token; echo "${#OTHER} long"
ENTRYPOINT ["/bin/cat"]
CMD ["/said"]
`
	task := n.newTask(t, false, config, func(cfg *drivers.TaskConfig) { cfg.Env["OTHER"] = "12345" })
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(task.TaskDir().LocalDir, "Dockerfile"), "FROM "+n.image+steps)
	write(filepath.Join(task.TaskDir().LocalDir, "said"), "first\n")
	write(filepath.Join(task.TaskDir().SecretsDir, "token"), "abc")
	task.start(t)
	if end := task.wait(t); !end.Successful() {
		t.Fatalf("ended with %+v: %s", end, task.read(t, "box.stderr.0"))
	}
	image := task.reference(t)
	for _, line := range []string{"[0] | 3\n", "[0] | 5 long\n", "[0] COPY said /said\n", "2 steps, 0 of them done before\n"} {
		if said := task.read(t, "box.stdout.0"); !strings.Contains(said, line) {
			t.Errorf("it did not say %q: %s", line, said)
		}
	}
	if said := n.output(t, fmt.Sprintf("image = %q\nnetwork_mode = \"none\"", image), nil); said != "first\nhello me\n" {
		t.Errorf("the image says %q", said)
	}
	ref, err := name.ParseReference(pushed, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("what was pushed: %v", err)
	}
	if digest, err := img.Digest(); err != nil || !strings.HasSuffix(image, digest.String()) {
		t.Errorf("%s was pushed as %s, %v", image, digest, err)
	}
	_, first := n.build(t, n.dockerfile("RUN date +%N >/when\nRUN echo 1 >/last"), nil)
	again, second := n.build(t, n.dockerfile("RUN date +%N >/when\nRUN echo 1 >/last"), nil)
	if first != second || !strings.Contains(again.read(t, "box.stdout.0"), "2 steps, 2 of them done before") {
		t.Errorf("built again %s is %s: %s", first, second, again.read(t, "box.stdout.0"))
	}
}

// TestImagesReachOtherNodes: an image that one node built is started, and built on, by another one, which has no other source for it.
func TestImagesReachOtherNodes(t *testing.T) {
	one := newBuilderNode(t, nil)
	_, image := one.build(t, one.dockerfile("RUN echo one >/said"), nil)
	two := newBuilderNode(t, func(c *driver.Config) { c.Blobs = one.config.Blobs })
	run := func(image string) string {
		return two.output(t, fmt.Sprintf("image = %q\nnetwork_mode = \"none\"\ncommand = \"/bin/cat\"\nargs = [\"/said\"]", image), nil)
	}
	if said := run(image); said != "one\n" {
		t.Errorf("the image says %q", said)
	}
	_, above := two.build(t, "network_mode = \"none\"\nbuild {\n dockerfile = \"FROM "+image+"\\nRUN echo two >>/said\"\n}", nil)
	one.build(t, one.dockerfile("RUN echo named >/said", `name = "web"`), nil)
	if said := run("freshet-image://web"); said != "named\n" {
		t.Errorf("the image of that name says %q", said)
	}
	one.build(t, one.dockerfile("RUN echo renamed >/said", `name = "web"`), nil)
	if said := run("freshet-image://web:latest"); said != "renamed\n" {
		t.Errorf("what has that name now says %q", said)
	}
	if said := run(above); said != "one\ntwo\n" {
		t.Errorf("the image on top says %q", said)
	}
	task := two.newTask(t, false, fmt.Sprintf("image = %q\nnetwork_mode = \"none\"", strings.Replace(image, "sha256:", "sha256:"+strings.Repeat("0", 8), 1)[:len(image)]), nil)
	if _, _, err := two.StartTask(task.TaskConfig); err == nil || !strings.Contains(err.Error(), "build it again") {
		t.Errorf("an image that is not there: %v", err)
	}
}

// TestBuildFromABundle: a context from the blob store, with modes and links; a link out of it leads nowhere.
func TestBuildFromABundle(t *testing.T) {
	n := newBuilderNode(t, nil)
	var bundle bytes.Buffer
	w := tar.NewWriter(&bundle)
	for _, entry := range []struct {
		header  tar.Header
		content string
	}{
		{tar.Header{Name: "Dockerfile", Mode: 0o644}, "FROM " + n.image + "\nCOPY . /src\nRUN /src/bin/run"},
		{tar.Header{Name: "bin/run", Mode: 0o755}, "#!/bin/sh\nls -l /src/bin/run | cut -c 1-10; cat /src/link"},
		{tar.Header{Name: "file", Mode: 0o600}, "linked"},
		{tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "file"}, ""},
	} {
		entry.header.Size = int64(len(entry.content))
		if err := w.WriteHeader(&entry.header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, entry.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	store, err := blobs.Open(t.Context(), n.config.Blobs)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	sum := sha256.Sum256(bundle.Bytes())
	digest := hex.EncodeToString(sum[:])
	if err := store.Put(t.Context(), digest, &bundle); err != nil {
		t.Fatal(err)
	}
	task, _ := n.build(t, "network_mode = \"none\"\nbuild {\n context = \"sha256:"+digest+"\"\n}", nil)
	if said := task.read(t, "box.stdout.0"); !strings.Contains(said, "[0] | -rwxr-xr-x\n[0] | linked\n") {
		t.Errorf("it said %s", said)
	}
}

// TestWhatTheNodeGivesToSteps is there when they run, and in no image: variables, files, and directories that they share. A Dockerfile has
// the last word, and other values make no other steps.
func TestWhatTheNodeGivesToSteps(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(settings, []byte("index of the operator"), 0o600); err != nil {
		t.Fatal(err)
	}
	change := func(value string) func(*driver.Config) {
		return func(c *driver.Config) {
			c.Builds.Env = []map[string]string{{"INDEX": value, "OWN": value}}
			c.Builds.Files = []driver.BuildFile{{Source: settings, Target: "/run/freshet/settings"}}
		}
	}
	n := newBuilderNode(t, change("theirs"))
	const steps = `ENV OWN=mine
RUN echo "$INDEX $OWN"; cat /run/freshet/settings; echo; touch "$PIP_CACHE_DIR/wheel" /made
RUN ls "$PIP_CACHE_DIR"; test -e "$PIP_CACHE_DIR/wheel"`
	task, image := n.build(t, n.dockerfile(steps), nil)
	if said := task.read(t, "box.stdout.0"); !strings.Contains(said, "| theirs mine\n[0] | index of the operator\n") || !strings.Contains(said, "| wheel\n") {
		t.Errorf("it said %s", said)
	}
	got := n.output(t, fmt.Sprintf("image = %q\nnetwork_mode = \"none\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"env; find / -path /proc -prune -o -path /sys -prune -o -newer /bin/busybox -print; ls /made; test ! -e /run\"]", image), nil)
	if strings.Contains(got, "theirs") || strings.Contains(got, "PIP_CACHE_DIR") || strings.Contains(got, "/run/freshet") || !strings.Contains(got, "OWN=mine") {
		t.Errorf("the image has %s", got)
	}
	config := n.config
	change("others")(&config)
	if err := n.set(config); err != nil {
		t.Fatal(err)
	}
	again, _ := n.build(t, n.dockerfile(steps+"\nRUN ls $PIP_CACHE_DIR; echo $INDEX"), nil)
	if said := again.read(t, "box.stdout.0"); !strings.Contains(said, "3 steps, 2 of them done before") || !strings.Contains(said, "| wheel\n[0] | others\n") {
		t.Errorf("again it said %s", said)
	}
	other, _ := n.build(t, n.dockerfile("RUN ls -A $PIP_CACHE_DIR; echo nothing"), func(cfg *drivers.TaskConfig) { cfg.Namespace = "other" })
	if said := other.read(t, "box.stdout.0"); strings.Contains(said, "| wheel") {
		t.Errorf("in another environment it said %s", said)
	}
}

// TestBuildsThatFail end with a reason that says where, and leave nothing behind: the node's end looks.
func TestBuildsThatFail(t *testing.T) {
	n := newBuilderNode(t, nil)
	for title, c := range map[string]struct{ config, want string }{
		"no such instruction":    {n.dockerfile("FLY"), "Dockerfile:2: "},
		"a step that fails":      {n.dockerfile("RUN echo oh no; exit 3"), "Dockerfile:2: the command exited with code 3; it printed at last:\noh no"},
		"no context":             {n.dockerfile("\nCOPY a /"), "Dockerfile:3: "},
		"no such stage":          {n.dockerfile("RUN true", `target = "web"`), "web"},
		"a secret that is unset": {n.dockerfile("RUN --mount=type=secret,id=s,required true"), `the secret "s" is needed and was not given`},
		"nothing in it":          {"network_mode = \"none\"\nbuild {\n dockerfile = \"FROM scratch\"\n}", "there is nothing in it"},
		"fills the disk":         {n.dockerfile("RUN dd if=/dev/zero of=/full bs=1M", "disk = 32"), "No space left on device"},
		"needs memory":           {n.dockerfile("RUN cat /dev/zero | tail -c 536870912"), "the step needed more memory than the task's 128 MB"},
		"loops":                  {n.dockerfile("RUN while :; do :; done", `timeout = "3s"`), "the build did not end within build.timeout, 3s"},
		"prints without end":     {n.dockerfile("RUN yes"), "the step printed more than 1000000 lines"},
		"no address without net": {n.dockerfile("ADD http://192.0.2.1/ /f"), "the build has no network"},
	} {
		t.Run(title, func(t *testing.T) {
			task, end := n.run(t, c.config, nil)
			if end.Successful() || !strings.Contains(task.read(t, "box.stderr.0"), c.want) {
				t.Errorf("ended with %+v and %q, want one with %q", end, task.read(t, "box.stderr.0"), c.want)
			}
			if want := title == "needs memory"; end.OOMKilled != want {
				t.Errorf("out of memory: %v", end.OOMKilled)
			}
		})
	}
}

// TestBuildsEnd when they are stopped, when their process is killed, and with the shell to the host that a step does not find.
func TestBuildsEnd(t *testing.T) {
	n := newBuilderNode(t, nil)
	running := n.dockerfile("RUN echo runs; nc -l -p 1 -e /bin/sh & while :; do sleep 1; done")
	t.Run("stopped", func(t *testing.T) {
		task := n.newTask(t, false, running, nil)
		task.start(t)
		task.says(t, "| runs")
		if took := task.stop(t, patience, ""); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
		if end := task.wait(t); end.Successful() || !strings.Contains(task.read(t, "box.stderr.0"), "the build was stopped") {
			t.Errorf("ended with %+v: %s", end, task.read(t, "box.stderr.0"))
		}
	})
	t.Run("killed", func(t *testing.T) {
		task := n.newTask(t, false, running, nil)
		task.start(t)
		task.says(t, "| runs")
		if err := n.DestroyTask(task.ID, true); err != nil {
			t.Fatal(err)
		}
		eventually.True(t, "nothing is left of it", func() bool {
			left, err := filepath.Glob(filepath.Join(n.config.DataDir, "tasks", "*"))
			return err == nil && len(left) == 0
		})
	})
	t.Run("found again", func(t *testing.T) {
		task := n.newTask(t, false, n.dockerfile("RUN echo runs; sleep 3; echo still"), nil)
		task.start(t)
		task.says(t, "| runs")
		n.replace(t)
		if err := n.RecoverTask(task.handle); err != nil {
			t.Fatal(err)
		}
		if end := task.wait(t); !end.Successful() || !strings.Contains(task.read(t, "box.stdout.0"), "| still") {
			t.Errorf("ended with %+v: %s", end, task.read(t, "box.stderr.0"))
		}
	})
}
