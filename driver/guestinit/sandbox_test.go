package guestinit_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/guestinit"
	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/busyboxtest"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// initTarget is where the tests mount init.
const initTarget = "/.freshet/init"

func findRunsc(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("FRESHET_RUNSC"); path != "" {
		return path
	}
	path, err := exec.LookPath("runsc")
	if err != nil {
		t.Fatal("runsc is needed: put the pinned one on PATH or into FRESHET_RUNSC (make tools prints it)")
	}
	return path
}

// image is a root with busybox, and init as the driver builds it.
type image struct{ dir, rootfs, init string }

func buildImage(t testing.TB) image {
	t.Helper()
	dir := t.TempDir()
	i := image{dir: dir, rootfs: filepath.Join(dir, "rootfs"), init: filepath.Join(dir, "freshet-init")}
	for _, d := range []string{"proc", "dev", "sys", "tmp", "bin", ".freshet"} {
		if err := os.MkdirAll(filepath.Join(i.rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(i.rootfs, initTarget), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	install(t, filepath.Join(i.rootfs, "bin/busybox"))
	for _, applet := range []string{"sh", "cat", "sleep", "setsid", "echo", "wc", "true"} {
		if err := os.Symlink("busybox", filepath.Join(i.rootfs, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	goBuild(t, filepath.Join(i.rootfs, "bin/server"), "./testdata/server")
	goBuild(t, i.init, "../../cmd/freshet-init")
	return i
}

func goBuild(t testing.TB, out, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
}

// install puts a static busybox there.
func install(t testing.TB, target string) {
	t.Helper()
	data, err := os.ReadFile(busyboxtest.Path(t))
	if err == nil {
		err = os.WriteFile(target, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// create makes a sandbox for init; start or restore it.
func (i image) create(t testing.TB, id string, settings guestinit.Settings) (*sandbox.Sandbox, *host) {
	t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(i.dir, "shared")
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(shared, "null-netns"), syscall.MNT_DETACH) }) // the second of two finds nothing
	s, err := sandbox.Create(sandbox.Config{
		ID: id, Runsc: findRunsc(t), StateDir: filepath.Join(t.TempDir(), id), SharedDir: shared,
		Rootfs: i.rootfs, Args: []string{initTarget}, Env: []string{"PATH=/bin", guestinit.SettingsEnv + "=" + string(text)},
		Mounts: []sandbox.Mount{{Source: i.init, Target: initTarget}},
	}, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, s.Stdin, s.Stdout)
	h.reap = func() error { _, err := s.Wait(); return err }
	said := make(chan string, 1)
	go func() {
		var lines []string
		eachTextLine(s.Stderr, func(line string) { lines = append(lines, line) })
		said <- strings.Join(lines, "\n")
	}()
	t.Cleanup(func() {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
		<-h.ended
		if text := <-said; t.Failed() {
			t.Logf("init's log:\n%s", text)
		}
	})
	return s, h
}

func TestCommandsInASandbox(t *testing.T) {
	image := buildImage(t)
	settings := command("sh", "-c", `(setsid sleep 1000 &); (trap '' TERM; sleep 1000) & cat; echo " $FRESHET_ALLOC"; echo heard >&2`)
	s, h := image.create(t, "original", settings)
	began := time.Now()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	h.greet()
	t.Logf("from start to ready: %s", time.Since(began))
	again := func(h *host, alloc string) {
		t.Helper()
		if _, output, fault := h.call(attempt("c1"), "in"); output != "in "+alloc+"\n" {
			t.Fatalf("got %q, %v", output, fault)
		}
		if !h.logged(h.last, "heard") {
			t.Errorf("logs: %v", h.logs)
		}
	}
	again(h, "first")
	took := time.Now()
	for range 10 {
		again(h, "first")
	}
	t.Logf("a call: %s", time.Since(took)/10)
	h.send(wire.TypeFreeze, 0, nil, nil)
	h.next(wire.TypeFrozen)
	dir := t.TempDir()
	if err := s.Checkpoint(dir); err != nil {
		t.Fatal(err)
	}
	h.thaw("first")
	again(h, "first")

	restored, copied := image.create(t, "copy", settings)
	began = time.Now()
	if err := restored.Restore(dir); err != nil {
		t.Fatal(err)
	}
	copied.thaw("second")
	t.Logf("from restore to ready: %s", time.Since(began))
	again(copied, "second")
	copied.send(wire.TypeDrain, 0, nil, nil)
	copied.next(wire.TypeDrained)
	if exit, err := restored.Wait(); err != nil || exit.Code != 0 || exit.Signal != 0 {
		t.Errorf("after the drain: %v, %v", exit, err)
	}
}

// TestAServerInASandbox has no network but the sandbox's own loopback: all goes through the frames.
func TestAServerInASandbox(t *testing.T) {
	image := buildImage(t)
	settings := guestinit.Settings{HTTP: &guestinit.HTTP{Command: []string{"server"}, Port: 8080, Ready: "/ready", Live: "/live"}}
	s, h := image.create(t, "original", settings)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	h.greet()
	count := func(h *host, want string) {
		t.Helper()
		if _, output, fault := h.call(get("/count"), ""); output != want {
			t.Fatalf("got %q, %v, want %s", output, fault, want)
		}
	}
	count(h, "1")
	h.send(wire.TypeFreeze, 0, nil, nil)
	h.next(wire.TypeFrozen)
	dir := t.TempDir()
	if err := s.Checkpoint(dir); err != nil {
		t.Fatal(err)
	}
	h.thaw("first")
	count(h, "2")

	restored, copied := image.create(t, "copy", settings)
	began := time.Now()
	if err := restored.Restore(dir); err != nil {
		t.Fatal(err)
	}
	copied.thaw("second")
	t.Logf("from restore to ready: %s", time.Since(began))
	count(copied, "2")
	front := proxy(t, copied)
	if body := fetch(t, front.URL+"/count"); body != "3" {
		t.Errorf("through a proxy: %q", body)
	}
	socketEcho(t, front.URL, 1<<20)
	took := time.Now()
	for range 20 {
		fetch(t, front.URL+"/live")
	}
	t.Logf("a request through proxy and stream: %s", time.Since(took)/20)
	took = time.Now()
	for i := range 20 {
		count(copied, fmt.Sprint(4+i))
	}
	t.Logf("a call: %s", time.Since(took)/20)
	front.Close()
	copied.transport.CloseIdleConnections()
	copied.send(wire.TypeDrain, 0, nil, nil)
	copied.next(wire.TypeDrained)
	if exit, err := restored.Wait(); err != nil || exit.Code != 0 || exit.Signal != 0 {
		t.Errorf("after the drain: %v, %v", exit, err)
	}
}
