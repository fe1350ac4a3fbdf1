package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// terminal is one in which a person runs the command line.
type terminal struct {
	dir  string
	vars []string
}

func newTerminal(t *testing.T) terminal {
	t.Helper()
	return terminal{dir: t.TempDir(), vars: variables(t)}
}

func (s terminal) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(shared.Bin, "freshet"), args...)
	cmd.Dir, cmd.Env = s.dir, s.vars
	return cmd
}

func (s terminal) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("freshet %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// edit replaces text in a file.
func (s terminal) edit(t *testing.T, file, old, text string) {
	t.Helper()
	path := filepath.Join(s.dir, file)
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, []byte(old)) {
		t.Fatalf("edit %s: %v: no %q in it", file, err, old)
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte(old), []byte(text), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}

// transcript is what a command has printed so far.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *transcript) await(t *testing.T, text string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(o.String())
		}
	}()
	eventually.True(t, "it prints "+text, func() bool { return strings.Contains(o.String(), text) })
}

// start runs a command in the background; the test ends it.
func (s terminal) start(t *testing.T, args ...string) (*exec.Cmd, *transcript) {
	t.Helper()
	cmd, out := s.command(args...), new(transcript)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait() // the test has failed before
		}
	})
	return cmd, out
}

// interrupt presses Ctrl-C and returns the exit code.
func interrupt(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code says it
	return cmd.ProcessState.ExitCode()
}

// TestServeTakesUpEdits also of code that does not build, which leaves what ran before; and it leaves nothing.
func TestServeTakesUpEdits(t *testing.T) {
	s := newTerminal(t)
	s.run(t, "new", "go", "served")
	s.dir = filepath.Join(s.dir, "served")
	cmd, out := s.start(t, "serve")
	out.await(t, "Serving served-dev")
	if got := s.run(t, "call", "served-dev.hello", "Ada"); !strings.Contains(got, "Hello, Ada!") {
		t.Fatalf("got %s", got)
	}
	out.await(t, "greeting Ada")
	best := time.Hour
	for _, word := range []string{"Hola", "Salut", "Ciao"} {
		began := time.Now()
		s.edit(t, "main.go", `Text: "`, `Text: "`+word+" ")
		eventually.True(t, "the answer says "+word, func() bool {
			got, err := s.command("call", "served-dev.hello", "Ada").CombinedOutput()
			return err == nil && strings.Contains(string(got), word)
		})
		took := time.Since(began)
		best = min(best, took)
		t.Logf("an edit was answered with after %s", took)
	}
	if best > 5*time.Second { // 2 s where nothing else runs, and without the race detector
		t.Errorf("the fastest round took %s", best)
	}

	s.edit(t, "main.go", "return greeting", "retrn greeting")
	out.await(t, "What ran before goes on.")
	if got := s.run(t, "call", "served-dev.hello", "Ada"); !strings.Contains(got, "Ciao") {
		t.Fatalf("got %s", got)
	}
	s.edit(t, "main.go", "retrn greeting", "return greeting")
	out.await(t, "No change.")
	second, err := s.command("serve").CombinedOutput()
	if err == nil || !strings.Contains(string(second), "--as") {
		t.Errorf("a second serve says %v: %s", err, second)
	}
	if code := interrupt(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out.await(t, "Removed served-dev.")
	if got := s.run(t, "ps", "--json"); strings.Contains(got, `"job": "served-dev`) {
		t.Errorf("left: %s", got)
	}
}

// TestInterruptedRunLeavesNothing whether its code is being built, waited for, or runs.
func TestInterruptedRunLeavesNothing(t *testing.T) {
	s := newTerminal(t)
	s.run(t, "new", "go", "stopped")
	s.dir = filepath.Join(s.dir, "stopped")
	s.edit(t, "main.go", `fmt.Println("greeting", name)`, "fmt.Println(\"greeting\", name)\n\tselect {}")
	cmd, out := s.start(t, "run")
	out.await(t, "greeting world")
	if code := interrupt(t, cmd); code != 130 {
		t.Errorf("exit code %d: %s", code, out)
	}
	if got := s.run(t, "ps", "--json"); strings.Contains(got, `"job": "stopped-run`) {
		t.Errorf("left: %s", got)
	}
}
