package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-dev/freshet/internal/busyboxtest"
	"github.com/freshet-dev/freshet/internal/eventually"
)

// contextOf makes a build's context of files by their names.
func contextOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// freshetImage runs `freshet image`, without a network for steps: the machine's own is nobody's to change.
func freshetImage(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	cmd := exec.CommandContext(ctx, filepath.Join(shared.Bin, "freshet"), append([]string{"image"}, args...)...)
	cmd.Env = append(os.Environ(), "FRESHET_STATE="+shared.Dir, "TOKEN=hunter2")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestImageBuild builds with the command line, lists, runs and removes.
func TestImageBuild(t *testing.T) {
	base := "docker-archive:" + busyboxtest.Image(t, t.TempDir())
	dir := contextOf(t, map[string]string{
		"Dockerfile": "FROM " + base + `
ARG WHO
COPY . /src
RUN --mount=type=secret,id=TOKEN ls /src; wc -c </run/secrets/TOKEN; echo "hello $WHO" >/said
`,
		"kept": "1", "left": "2", ".dockerignore": "left\n",
	})
	build := []string{"build", "--network", "none", "-t", "team/web:1", "--build-arg", "WHO=you", "--secret", "id=TOKEN", dir}
	reference, said, code := freshetImage(t.Context(), build...)
	if code != 0 || !regexp.MustCompile(`^freshet-image://sha256:[0-9a-f]{64}\n$`).MatchString(reference) {
		t.Fatalf("ended with %d: %s\n%s", code, reference, said)
	}
	for _, line := range []string{"[0] COPY . /src\n", "[0] | kept\n", "[0] | 7\n", "2 steps, 0 of them done before\n"} {
		if !strings.Contains(said, line) || strings.Contains(said, "| left") || strings.Contains(said, "hunter2") {
			t.Errorf("it did not say %q, or too much: %s", line, said)
		}
	}
	again, said, code := freshetImage(t.Context(), build...)
	if code != 0 || again != reference || !strings.Contains(said, "2 steps, 2 of them done before\n") {
		t.Errorf("again it is %s, code %d: %s", again, code, said)
	}
	if list, _, code := freshetImage(t.Context(), "ls"); code != 0 || !strings.Contains(list, "team/web:1") || !strings.Contains(list, strings.TrimSpace(reference)) {
		t.Errorf("listed with %d: %s", code, list)
	}
	if out, err := nomad(t, "job", "status"); err != nil || strings.Contains(out, "freshet-build-") {
		t.Errorf("builds are left: %v: %s", err, out)
	}
	if out, err := nomad(t, "var", "list"); err == nil && strings.Contains(out, "freshet-build-") {
		t.Errorf("secrets are left: %s", out)
	}
	if said, errs, code := freshetImage(t.Context(), "rm", "team/web:1"); code != 0 || said != "Removed team/web:1.\n" {
		t.Errorf("removed with %d: %s%s", code, said, errs)
	}
	if list, _, code := freshetImage(t.Context(), "ls"); code != 0 || strings.Contains(list, "team/web:1") {
		t.Errorf("then listed with %d: %s", code, list)
	}
}

// TestImageBuildsThatEnd: by an error, and by Ctrl-C.
func TestImageBuildsThatEnd(t *testing.T) {
	base := "docker-archive:" + busyboxtest.Image(t, t.TempDir())
	wrong := contextOf(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN echo why >&2; exit 4\n"})
	if _, said, code := freshetImage(t.Context(), "build", "--network", "none", wrong); code != 3 ||
		!strings.Contains(said, "Error: build image: Dockerfile:2: the command exited with code 4; it printed at last:\nwhy\n") {
		t.Errorf("ended with %d: %s", code, said)
	}
	if _, said, code := freshetImage(t.Context(), "build"); code != 2 {
		t.Errorf("a wrong command line ended with %d: %s", code, said)
	}
	endless := contextOf(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN while :; do sleep 1; done\n"})
	ctx, cancel := context.WithCancel(t.Context())
	type end struct {
		said string
		code int
	}
	ended := make(chan end, 1)
	go func() {
		_, said, code := freshetImage(ctx, "build", "--network", "none", endless)
		ended <- end{said, code}
	}()
	steps := func() []string {
		found, err := filepath.Glob(filepath.Join(shared.State.DriverDir(), "tasks", "*", "build", "*", "gvisor"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	eventually.True(t, "the step runs", func() bool { return len(steps()) > 0 })
	cancel()
	if got := <-ended; got.code != 130 || !strings.Contains(got.said, "Interrupted.") {
		t.Errorf("ended with %d: %s", got.code, got.said)
	}
	eventually.True(t, "nothing of the build is left", func() bool {
		out, err := nomad(t, "job", "status")
		return err == nil && !strings.Contains(out, "freshet-build-") && len(steps()) == 0
	})
}
