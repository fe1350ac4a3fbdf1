package sandbox_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/sandbox"
)

const (
	// ownerEnv makes the test binary own a sandbox and wait to be killed.
	ownerEnv = "FRESHET_TEST_OWNER"
	// attachEnv makes it use the sandbox of another process.
	attachEnv = "FRESHET_TEST_ATTACH"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		own(dir)
	}
	if dir := os.Getenv(attachEnv); dir != "" {
		if err := useOther(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// own creates a sandbox as a supervisor does, says which processes it has, and waits for the end.
func own(dir string) {
	cfg := sandbox.Config{ID: "owned", Runsc: os.Getenv("RUNSC"), StateDir: filepath.Join(dir, "state"), SharedDir: filepath.Join(dir, "shared"), Rootfs: filepath.Join(dir, "rootfs"), Args: []string{"/guest"}}
	s, err := sandbox.Create(cfg, zerolog.New(os.Stderr))
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.PIDs()[0], s.PIDs()[1])
	select {}
}

// useOther uses and then kills a sandbox that another process owns.
func useOther(stateDir string) error {
	guest, err := sandbox.Attach(stateDir, "box", zerolog.New(os.Stderr))
	if err != nil {
		return err
	}
	args := []string{"/bin/sh", "-c", "echo from outside $(id -u)"}
	if _, err := guest.Exec(context.Background(), sandbox.ExecConfig{Args: args, User: "worker", Stdout: os.Stdout}); err != nil {
		return err
	}
	stats, err := guest.Stats()
	if err != nil {
		return err
	}
	fmt.Println("processes", stats.Processes)
	return guest.Signal(syscall.SIGKILL)
}

// attachedSelf runs useOther in a process of its own.
func attachedSelf(stateDir string) ([]byte, error) {
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), attachEnv+"="+stateDir)
	other.Stderr = os.Stderr
	return other.Output()
}

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

// buildRootfs makes a root with the guest program alone.
func buildRootfs(t testing.TB, dir string) string {
	t.Helper()
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(buildTool(t, "guest"), filepath.Join(rootfs, "guest")); err != nil {
		t.Fatal(err)
	}
	return rootfs
}

// buildTool builds a static program of testdata.
func buildTool(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-o", path, "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

// sharedDir is the directory for what sandboxes share, unmounted at the test's end.
func sharedDir(t testing.TB, dir string) string {
	shared := filepath.Join(dir, "shared")
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(shared, "null-netns"), syscall.MNT_DETACH) }) // the second of two finds nothing
	return shared
}

type guest struct {
	*sandbox.Sandbox
	out *bufio.Reader
}

func newGuest(t testing.TB, id, rootfs string, mounts ...sandbox.Mount) *guest {
	t.Helper()
	cfg := sandbox.Config{ID: id, Runsc: findRunsc(t), StateDir: filepath.Join(t.TempDir(), id), SharedDir: sharedDir(t, filepath.Dir(rootfs)), Rootfs: rootfs, Args: []string{"/guest"}, Mounts: mounts}
	s, err := sandbox.Create(cfg, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return &guest{s, bufio.NewReader(s.Stdout)}
}

func (g *guest) say(t testing.TB, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(g.Stdin, line); err != nil {
		t.Fatal(err)
	}
	if err := g.Stdout.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := g.out.ReadString('\n')
	if err != nil {
		t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimSpace(answer)
}

func (g *guest) start(t testing.TB) {
	t.Helper()
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
}

func TestRestoreKeepsMemory(t *testing.T) {
	rootfs := buildRootfs(t, t.TempDir())
	original := newGuest(t, "original", rootfs)
	original.start(t)
	if got := original.say(t, "hello"); got != "1 hello" {
		t.Fatalf("first answer %q", got)
	}
	dir := t.TempDir()
	if err := original.Checkpoint(dir); err != nil {
		t.Fatal(err)
	}
	if got := original.say(t, "still here"); got != "2 still here" {
		t.Fatalf("the original after its checkpoint answered %q", got)
	}
	for i := range 2 {
		restored := newGuest(t, "copy"+strconv.Itoa(i), rootfs)
		if err := restored.Restore(dir); err != nil {
			t.Fatal(err)
		}
		if got := restored.say(t, "again"); got != "2 again" {
			t.Fatalf("copy %d answered %q, want the count to go on from the snapshot", i, got)
		}
	}
}

func TestCorruptSnapshotLeavesRoomForAColdStart(t *testing.T) {
	rootfs := buildRootfs(t, t.TempDir())
	original := newGuest(t, "original", rootfs)
	original.start(t)
	dir := t.TempDir()
	if err := original.Checkpoint(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, sandbox.StateFile), 1000); err != nil {
		t.Fatal(err)
	}
	broken := newGuest(t, "broken", rootfs)
	if err := broken.Restore(dir); err == nil {
		t.Fatal("a truncated snapshot was restored")
	}
	if err := broken.Destroy(); err != nil {
		t.Fatal(err)
	}
	cold := newGuest(t, "cold", rootfs)
	cold.start(t)
	if got := cold.say(t, "hello"); got != "1 hello" {
		t.Fatalf("cold start after a failed restore answered %q", got)
	}
}

func TestWaitTellsHowTheGuestEnded(t *testing.T) {
	rootfs := buildRootfs(t, t.TempDir())
	t.Run("code", func(t *testing.T) {
		g := newGuest(t, "code", rootfs)
		g.start(t)
		if _, err := fmt.Fprintln(g.Stdin, "exit 7"); err != nil {
			t.Fatal(err)
		}
		if exit, err := g.Wait(); err != nil || exit.Code != 7 || exit.Signal != 0 {
			t.Fatalf("got %+v, %v; want code 7", exit, err)
		}
	})
	t.Run("killed", func(t *testing.T) {
		g := newGuest(t, "killed", rootfs)
		g.start(t)
		g.say(t, "hello")
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		if exit, err := g.Wait(); err != nil || exit.Signal != int(syscall.SIGKILL) {
			t.Fatalf("got %+v, %v; want signal 9", exit, err)
		}
		for range 2 { // a sandbox that ended, and one that is destroyed: nobody else may be hit
			if err := g.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := g.Destroy(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestRootAndMountsAreNotWritten(t *testing.T) {
	rootfs := buildRootfs(t, t.TempDir())
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "fact"), []byte("from the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newGuest(t, "mounts", rootfs, sandbox.Mount{Source: host, Target: "/data"})
	g.start(t)
	if got := g.say(t, "read /data/fact"); got != "1 from the host <nil>" {
		t.Errorf("reading a mount: %q", got)
	}
	if got := g.say(t, "write /data/new"); got == "2 <nil>" {
		t.Error("a read-only mount was written")
	}
	if got := g.say(t, "write /tmp/new"); got != "3 <nil>" {
		t.Errorf("writing /tmp: %q", got)
	}
	if got := g.say(t, "write /new"); got == "4 <nil>" {
		t.Error("the read-only root was written")
	}
}

func TestKilledOwnerLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	buildRootfs(t, dir)
	sharedDir(t, dir)
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerEnv+"="+dir, "RUNSC="+findRunsc(t))
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var sentry, gofer int
	if _, err := fmt.Fscan(out, &sentry, &gofer); err != nil {
		t.Fatal(err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // it was killed
	for _, pid := range []int{sentry, gofer} {
		for deadline := time.Now().Add(10 * time.Second); alive(pid); {
			if time.Now().After(deadline) {
				t.Fatalf("process %d outlived its owner", pid)
			}
		}
	}
}

// alive tells a running process from a zombie, which nobody here may reap.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	return !strings.Contains(string(stat), ") Z ")
}

func BenchmarkStart(b *testing.B) {
	rootfs := buildRootfs(b, b.TempDir())
	for i := range b.N {
		g := newGuest(b, "cold"+strconv.Itoa(i), rootfs)
		g.start(b)
		g.say(b, "hello")
	}
}

func BenchmarkRestore(b *testing.B) {
	rootfs := buildRootfs(b, b.TempDir())
	g := newGuest(b, "original", rootfs)
	g.start(b)
	g.say(b, "hello")
	dir := b.TempDir()
	if err := g.Checkpoint(dir); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for i := range b.N {
		restored := newGuest(b, "copy"+strconv.Itoa(i), rootfs)
		if err := restored.Restore(dir); err != nil {
			b.Fatal(err)
		}
		restored.say(b, "hello")
	}
}
