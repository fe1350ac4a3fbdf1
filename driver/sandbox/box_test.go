package sandbox_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/busyboxtest"
	"github.com/freshet-dev/freshet/internal/eventually"
)

// shellRoot makes a root with a shell, its tools and a few accounts.
func shellRoot(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, d := range []string{"proc", "dev", "sys", "tmp", "bin", "etc", "home/worker", "data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busyboxtest.Path(t))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"bin/busybox": string(data),
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1001::/home/worker:/bin/sh\n",
		"etc/group":   "root:x:0:\nworker:x:1001:\nvideo:x:44:worker\nstaff:x:50:\n",
		"etc/plain":   "no program\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "bin/busybox"), 0o755); err != nil {
		t.Fatal(err)
	}
	names, err := exec.Command(busyboxtest.Path(t), "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(names)) {
		if name == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// shell is a configuration that runs a script.
func shell(t testing.TB, root, script string) sandbox.Config {
	t.Helper()
	return sandbox.Config{
		ID: "box", Runsc: findRunsc(t), StateDir: filepath.Join(t.TempDir(), "state"), SharedDir: sharedDir(t, filepath.Dir(root)),
		Rootfs: root, Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"},
	}
}

// box is a sandbox whose output is collected.
type box struct {
	*sandbox.Sandbox
	stdout, stderr buffer
	copied         sync.WaitGroup
}

// output is what the guest printed until now.
func (b *box) output() string { return b.stdout.String() }

// buffer is one that may be read while it is written.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(data)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// start creates and starts a sandbox.
func start(t testing.TB, cfg sandbox.Config) *box {
	t.Helper()
	made, err := sandbox.Create(cfg, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	b := &box{Sandbox: made}
	b.copied.Go(func() { _, _ = io.Copy(&b.stdout, made.Stdout) }) // a terminal's end is an error
	if made.Stderr != nil {
		b.copied.Go(func() { _, _ = io.Copy(&b.stderr, made.Stderr) })
	}
	t.Cleanup(func() {
		if err := made.Destroy(); err != nil {
			t.Error(err)
		}
		b.copied.Wait()
		_ = made.Stdin.Close()
		_ = made.Stdout.Close()
		if made.Stderr != nil {
			_ = made.Stderr.Close()
		}
	})
	if err := made.Start(); err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs a sandbox to its end and returns what it printed.
func run(t testing.TB, cfg sandbox.Config) (output string, exit sandbox.Exit) {
	t.Helper()
	b := start(t, cfg)
	exit, err := b.Wait()
	if err != nil {
		t.Fatal(err)
	}
	b.copied.Wait()
	if said := b.stderr.String(); said != "" {
		t.Logf("stderr: %s", said)
	}
	return strings.TrimSpace(b.stdout.String()), exit
}

// idleProcesses is how many processes an idle guest has.
const idleProcesses = 2

// idle starts a guest that waits until it is killed, and reaps what others leave it.
func idle(t testing.TB, change ...func(*sandbox.Config)) *box {
	t.Helper()
	cfg := shell(t, shellRoot(t), "sleep 10000 & while :; do wait; done")
	for _, c := range change {
		c(&cfg)
	}
	b := start(t, cfg)
	eventually.True(t, "the guest is idle", func() bool { return processes(t, b) == idleProcesses })
	return b
}

// processes is how many there are in a sandbox.
func processes(t testing.TB, b *box) uint64 {
	t.Helper()
	stats, err := b.Stats()
	must(t, err)
	return stats.Processes
}

// execIn runs a command in a sandbox and returns what it printed.
func execIn(t testing.TB, g *sandbox.Guest, cfg sandbox.ExecConfig) (string, sandbox.Exit, error) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Stdout, cfg.Stderr = write, write
	var output bytes.Buffer
	var copied sync.WaitGroup
	copied.Go(func() { _, _ = io.Copy(&output, read) })
	exit, err := g.Exec(t.Context(), cfg)
	_ = write.Close()
	copied.Wait()
	_ = read.Close()
	return strings.TrimSpace(output.String()), exit, err
}

func sh(script string, args ...any) []string {
	return []string{"/bin/sh", "-c", fmt.Sprintf(script, args...)}
}
