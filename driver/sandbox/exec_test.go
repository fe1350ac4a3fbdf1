package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/eventually"
)

func TestExec(t *testing.T) {
	b := idle(t, func(c *sandbox.Config) {
		c.User, c.Cwd = "worker", "/home"
		c.Env = append(c.Env, "A=task", "B=task")
		c.Capabilities = sandbox.DefaultCapabilities()
		c.Ulimits = []sandbox.Ulimit{{Name: "nofile", Soft: 77, Hard: 77}}
	})
	for name, test := range map[string]struct {
		cfg  sandbox.ExecConfig
		want string
		exit sandbox.Exit
	}{
		"as the task":       {cfg: sandbox.ExecConfig{Args: sh("id -u; id -g; pwd; echo $A $B $HOME; ulimit -n; grep CapEff /proc/self/status")}, want: "1000\n1001\n/home\ntask task /home/worker\n77\nCapEff:\t0000000000000000"},
		"as somebody else":  {cfg: sandbox.ExecConfig{Args: sh("id -u; id -g; echo $HOME; grep CapEff /proc/self/status"), User: "root"}, want: "0\n0\n/root\nCapEff:\t00000000a80405fb"},
		"uid and group":     {cfg: sandbox.ExecConfig{Args: sh("id -u; id -g"), User: "5:staff"}, want: "5\n50"},
		"own environment":   {cfg: sandbox.ExecConfig{Args: sh("echo $A $B"), Env: []string{"B=mine"}}, want: "task mine"},
		"own directory":     {cfg: sandbox.ExecConfig{Args: sh("pwd"), Cwd: "/etc"}, want: "/etc"},
		"a name in PATH":    {cfg: sandbox.ExecConfig{Args: []string{"echo", "hello"}}, want: "hello"},
		"code":              {cfg: sandbox.ExecConfig{Args: sh("exit 3")}, exit: sandbox.Exit{Code: 3}},
		"signal":            {cfg: sandbox.ExecConfig{Args: sh("kill -TERM $$")}, exit: sandbox.Exit{Signal: 15}},
		"no input":          {cfg: sandbox.ExecConfig{Args: sh("cat; echo end")}, want: "end"},
		"streams are apart": {cfg: sandbox.ExecConfig{Args: sh("echo out; echo err >&2")}, want: "out\nerr"},
	} {
		t.Run(name, func(t *testing.T) {
			got, exit, err := execIn(t, b.Guest, test.cfg)
			if err != nil || got != test.want || exit != test.exit {
				t.Errorf("got %q, %+v, %v; want %q, %+v", got, exit, err, test.want, test.exit)
			}
		})
	}
	for name, test := range map[string]struct {
		cfg  sandbox.ExecConfig
		want error
		text string
	}{
		"no such path":      {cfg: sandbox.ExecConfig{Args: []string{"/bin/nothing"}}, want: sandbox.ErrNotFound},
		"no such name":      {cfg: sandbox.ExecConfig{Args: []string{"nothing"}}, want: sandbox.ErrNotFound},
		"not executable":    {cfg: sandbox.ExecConfig{Args: []string{"/etc/plain"}}, want: sandbox.ErrNotExecutable},
		"a directory":       {cfg: sandbox.ExecConfig{Args: []string{"/etc"}}, want: sandbox.ErrNotExecutable},
		"nothing":           {text: "args"},
		"no such user":      {cfg: sandbox.ExecConfig{Args: sh(":"), User: "ghost"}, text: `"ghost"`},
		"no such directory": {cfg: sandbox.ExecConfig{Args: sh(":"), Cwd: "/nowhere"}, text: "/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			_, exit, err := execIn(t, b.Guest, test.cfg)
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %+v, %v", exit, err)
			}
		})
	}
}

func TestExecPassesInput(t *testing.T) {
	b := idle(t)
	input, theirs, err := os.Pipe()
	must(t, err)
	go func() { // ends with the last byte
		_, _ = io.Copy(theirs, io.LimitReader(zeros{}, 5<<20))
		_ = theirs.Close()
	}()
	got, exit, err := execIn(t, b.Guest, sandbox.ExecConfig{Args: sh("wc -c"), Stdin: input})
	if err != nil || got != strconv.Itoa(5<<20) || exit.Code != 0 {
		t.Errorf("got %q, %v, %v", got, exit, err)
	}
	_ = input.Close()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestExecEndsWithItsContext(t *testing.T) {
	b := idle(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the caller hung up")
	read, write, err := os.Pipe()
	must(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := b.Exec(ctx, sandbox.ExecConfig{Args: sh("sleep 1000 & sleep 1000 & echo ready; wait"), Stdout: write})
		done <- err
	}()
	if _, err := io.ReadFull(read, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	cancel(reason)
	if err := <-done; !errors.Is(err, reason) {
		t.Errorf("got %v, want the context's cause", err)
	}
	_, _ = write.Close(), read.Close()
	eventually.True(t, "the whole group is gone", func() bool { return processes(t, b) == idleProcesses })
}

func TestManyExecsAtOnceLeakNothing(t *testing.T) {
	b := idle(t)
	_, _, err := execIn(t, b.Guest, sandbox.ExecConfig{Args: sh(":")})
	must(t, err)
	files := openFiles(t)
	running := goleak.IgnoreCurrent()
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			got, exit, err := execIn(t, b.Guest, sandbox.ExecConfig{Args: sh("cat /proc/self/stat >/dev/null; echo %d; exit %d", i, i)})
			if err != nil || got != strconv.Itoa(i) || exit.Code != i {
				t.Errorf("exec %d: %q, %v, %v", i, got, exit, err)
			}
		})
	}
	all.Wait()
	goleak.VerifyNone(t, running)
	if now := openFiles(t); now > files {
		t.Errorf("%d files are open, before there were %d", now, files)
	}
	if n := processes(t, b); n != idleProcesses {
		t.Errorf("%d processes run in the sandbox, want the guest's alone", n)
	}
}

func openFiles(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestExecOfASandboxThatDies(t *testing.T) {
	b := idle(t)
	read, write, err := os.Pipe()
	must(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := b.Exec(t.Context(), sandbox.ExecConfig{Args: sh("echo ready; sleep 1000"), Stdout: write})
		done <- err
	}()
	if _, err := io.ReadFull(read, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	must(t, b.Kill())
	if err := <-done; err == nil {
		t.Error("an exec ended well in a sandbox that was killed")
	}
	_, _ = write.Close(), read.Close()
	if _, err := b.Exec(t.Context(), sandbox.ExecConfig{Args: sh(":")}); err == nil {
		t.Error("a killed sandbox took an exec")
	}
}

func TestExecInAThawedSandbox(t *testing.T) {
	root := shellRoot(t)
	cfg := shell(t, root, "echo data > /tmp/kept; while :; do sleep 0.1; done")
	original := start(t, cfg)
	dir := t.TempDir()
	eventually.True(t, "the guest has written", func() bool {
		got, _, err := execIn(t, original.Guest, sandbox.ExecConfig{Args: sh("cat /tmp/kept")})
		return err == nil && got == "data"
	})
	must(t, original.Checkpoint(dir))
	if got, _, err := execIn(t, original.Guest, sandbox.ExecConfig{Args: sh("cat /tmp/kept")}); err != nil || got != "data" {
		t.Errorf("after the checkpoint: %q, %v", got, err)
	}
	cfg.ID, cfg.StateDir = "copy", filepath.Join(t.TempDir(), "state")
	made, err := sandbox.Create(cfg, zerolog.Nop())
	must(t, err)
	defer func() { must(t, made.Destroy()) }()
	if _, err := made.Exec(t.Context(), sandbox.ExecConfig{Args: sh(":")}); err == nil || !strings.Contains(err.Error(), "not started") {
		t.Errorf("before the restore: %v", err)
	}
	must(t, made.Restore(dir))
	if got, _, err := execIn(t, made.Guest, sandbox.ExecConfig{Args: sh("cat /tmp/kept"), User: "worker"}); err != nil || got != "data" {
		t.Errorf("after the restore: %q, %v", got, err)
	}
	must(t, made.Signal(9))
	if exit, err := made.Wait(); err != nil || exit != (sandbox.Exit{Signal: 9}) {
		t.Errorf("the copy ended with %+v, %v", exit, err)
	}
}

// TestLongPaths: a unix socket's address has room for 107 bytes.
func TestLongPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a", 100), strings.Repeat("b", 100))
	must(t, os.MkdirAll(dir, 0o755))
	b := idle(t, func(c *sandbox.Config) {
		c.StateDir = filepath.Join(dir, "state")
		c.Files = []sandbox.File{{Target: "/etc/hosts", Content: "here\n"}}
	})
	if got, _, err := execIn(t, b.Guest, sandbox.ExecConfig{Args: sh("cat /etc/hosts")}); err != nil || got != "here" {
		t.Errorf("exec: %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "state/runsc-box.sock")); err != nil {
		t.Errorf("the control socket is not in the state directory: %v", err)
	}
	must(t, b.Signal(9))
	if exit, err := b.Wait(); err != nil || exit != (sandbox.Exit{Signal: 9}) {
		t.Errorf("ended with %+v, %v", exit, err)
	}
}

// terminal is one that a test types into.
type terminal struct {
	input  *os.File
	output buffer
	sizes  chan sandbox.WindowSize
	done   chan sandbox.Exit
	copied sync.WaitGroup
}

func openTerminal(t *testing.T, g *sandbox.Guest, ctx context.Context, args []string) *terminal {
	t.Helper()
	stdin, typed, err := os.Pipe()
	must(t, err)
	shown, stdout, err := os.Pipe()
	must(t, err)
	tty := &terminal{input: typed, sizes: make(chan sandbox.WindowSize), done: make(chan sandbox.Exit, 1)}
	tty.copied.Go(func() { _, _ = io.Copy(&tty.output, shown) })
	go func() {
		exit, err := g.Exec(ctx, sandbox.ExecConfig{Args: args, Env: []string{"TERM=xterm"}, Stdin: stdin, Stdout: stdout, Terminal: &sandbox.WindowSize{Rows: 30, Cols: 100}, Resize: tty.sizes})
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		_ = stdout.Close()
		tty.copied.Wait()
		_, _, _ = stdin.Close(), typed.Close(), shown.Close()
		tty.done <- exit
	}()
	return tty
}

func (tty *terminal) waitFor(t *testing.T, text string) {
	t.Helper()
	eventually.True(t, fmt.Sprintf("the terminal shows %q", text), func() bool { return strings.Contains(tty.output.String(), text) })
}

func (tty *terminal) enter(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(tty.input, text)
	must(t, err)
}

func TestExecInATerminal(t *testing.T) {
	b := idle(t)
	running := goleak.IgnoreCurrent()
	tty := openTerminal(t, b.Guest, t.Context(), []string{"/bin/sh"})
	tty.enter(t, "stty size; echo $((6*7))\n")
	tty.waitFor(t, "30 100")
	tty.waitFor(t, "42")
	tty.sizes <- sandbox.WindowSize{Rows: 50, Cols: 132}
	tty.enter(t, "stty size\n")
	tty.waitFor(t, "50 132")
	tty.enter(t, "sh -c \"trap 'stty size; exit' WINCH; echo li''stens; while :; do sleep 0.05; done\"\n")
	tty.waitFor(t, "listens")
	tty.sizes <- sandbox.WindowSize{Rows: 51, Cols: 133}
	tty.waitFor(t, "51 133")
	tty.enter(t, "sleep 1000; echo interr''upted $?\n")
	eventually.True(t, "sleep runs", func() bool { return processes(t, b) == idleProcesses+2 })
	eventually.True(t, "sleep is interrupted", func() bool { // typed again: the first may come before the shell has handed it the terminal
		tty.enter(t, "\x03")
		return processes(t, b) == idleProcesses+1
	})
	tty.enter(t, "\necho al''ive\n")
	tty.waitFor(t, "alive")
	tty.enter(t, "exit 5\n")
	if exit := <-tty.done; exit != (sandbox.Exit{Code: 5}) {
		t.Errorf("ended with %+v", exit)
	}
	goleak.VerifyNone(t, running)
}

func TestATerminalShowsAllAndEnds(t *testing.T) {
	b := idle(t)
	t.Run("much output", func(t *testing.T) {
		tty := openTerminal(t, b.Guest, t.Context(), sh("seq 1 50000; sleep 1000 & exit 0"))
		if exit := <-tty.done; exit.Code != 0 {
			t.Errorf("ended with %v", exit)
		}
		if got := tty.output.String(); !strings.HasSuffix(got, "49999\r\n50000\r\n") || strings.Count(got, "\n") != 50000 {
			t.Errorf("%d lines, the last bytes are %q", strings.Count(got, "\n"), got[max(0, len(got)-30):])
		}
	})
	t.Run("end of input", func(t *testing.T) {
		tty := openTerminal(t, b.Guest, t.Context(), []string{"cat"})
		tty.enter(t, "typed\n")
		tty.waitFor(t, "typed\r\ntyped\r\n")
		must(t, tty.input.Close())
		if exit := <-tty.done; exit.Code != 0 {
			t.Errorf("ended with %v", exit)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tty := openTerminal(t, b.Guest, ctx, sh("echo ready; sleep 1000"))
		tty.waitFor(t, "ready")
		cancel()
		<-tty.done
	})
}

func TestTheGuestsOwnTerminal(t *testing.T) {
	cfg := shell(t, shellRoot(t), "stty size; trap 'stty size; exit 0' WINCH; [ -t 0 ] && echo yes; while :; do sleep 0.05; done")
	cfg.Terminal = &sandbox.WindowSize{Rows: 20, Cols: 70}
	b := start(t, cfg)
	eventually.True(t, "a terminal", func() bool { return strings.Contains(b.output(), "20 70\r\nyes") })
	must(t, b.Resize(sandbox.WindowSize{Rows: 21, Cols: 71}))
	eventually.True(t, "another size", func() bool { return strings.Contains(b.output(), "21 71\r\n") })
	if exit, err := b.Wait(); err != nil || exit.Code != 0 {
		t.Errorf("ended with %v, %v", exit, err)
	}
}

func TestAnotherProcessAttaches(t *testing.T) {
	var stateDir string
	b := idle(t, func(c *sandbox.Config) { stateDir = c.StateDir })
	if _, err := sandbox.Attach(stateDir, "other", zerolog.Nop()); err == nil {
		t.Error("attached to a sandbox that there is not")
	}
	out, err := attachedSelf(stateDir)
	if err != nil || string(bytes.TrimSpace(out)) != "from outside 1000\nprocesses 2" {
		t.Errorf("the other process: %q, %v", out, err)
	}
	if exit, err := b.Wait(); err != nil || exit != (sandbox.Exit{Signal: 9}) {
		t.Errorf("ended with %+v, %v", exit, err)
	}
	b.copied.Wait()
	if _, err := b.Stats(); err == nil {
		t.Error("a sandbox that ended has stats")
	}
}
