// Package cli tests the command line against a real cluster: scripts of testdata run it as people do.
package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/freshet-dev/freshet/internal/busyboxtest"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/test/clustertest"
)

// shared is the cluster of all tests: a start takes seconds. Its gateway asks for tokens.
var shared clustertest.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-cli-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // the next run has another
	shared = clustertest.Cluster{Bin: os.Getenv("FRESHET_BIN"), Dir: dir, Flags: []string{"--auth"}}
	if err := shared.Up(); err != nil {
		fmt.Fprintln(os.Stderr, err, shared.Output())
		return 1
	}
	code := m.Run()
	if code != 0 {
		shared.TellLogs(os.Stderr)
	}
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// stopLimit is how long a person waits at Ctrl-C at most, though calls go on and somebody follows a log: 5 s where nothing else runs.
const stopLimit = 10 * time.Second

// stop ends the cluster while a call runs in it that would go on, and somebody follows what that writes.
func stop() error {
	if err := putBox("stopped", "docker-archive:"+os.Getenv("FRESHET_PYTHON_IMAGE")); err != nil {
		return err
	}
	follow := exec.Command(filepath.Join(shared.Bin, "freshet"), "logs", "-f", "stopped.run")
	follow.Env = append(os.Environ(), "FRESHET_STATE="+shared.Dir)
	if err := follow.Start(); err != nil {
		return err
	}
	began := time.Now()
	out, err := shared.Freshet("down")
	_ = follow.Wait() // its gateway has gone
	if took := time.Since(began); err == nil && took > stopLimit {
		err = fmt.Errorf("freshet down took %s", took)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// goSetting is one of the Go command's.
func goSetting(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// variables are the environment of a person at the cluster, who can reach no server of modules.
func variables(t *testing.T) []string {
	t.Helper()
	sdk, err := filepath.Abs("../../sdk")
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"PATH=" + shared.Bin + string(filepath.ListSeparator) + os.Getenv("PATH"),
		"FRESHET_STATE=" + shared.Dir, "STATE=" + shared.Dir,
		"FRESHET_CACHE=" + filepath.Join(t.TempDir(), "cache"),
		"FRESHET_NOMAD=" + os.Getenv("FRESHET_NOMAD"), "FRESHET_RUNSC=" + os.Getenv("FRESHET_RUNSC"),
		"GOPROXY=off", "GOFLAGS=", "GOWORK=off",
		"GOCACHE=" + goSetting(t, "GOCACHE"), "GOMODCACHE=" + goSetting(t, "GOMODCACHE"),
		"HOME=" + os.Getenv("HOME"), "XDG_CONFIG_HOME=" + filepath.Join(t.TempDir(), "config"),
		"SDK=" + sdk,
		"IMAGE=docker-archive:" + os.Getenv("FRESHET_PYTHON_IMAGE"),
		"BUSYBOX=docker-archive:" + busyboxtest.Image(t, t.TempDir()),
		"TOKEN=" + shared.State.Token,
		"ADDR=" + shared.State.Gateway(),
	}
}

// TestScripts runs testdata/*.txtar. Beside the usual commands of such scripts there is
//
//	exits CODE COMMAND...   runs a command that must end with this code
//	until CODE COMMAND...   runs a command again and again until it does
//	putbox APP              deploys the app of boxManifest
func TestScripts(t *testing.T) {
	vars := variables(t)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		ContinueOnError:    true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(append(env.Vars, vars...), "XDG_CONFIG_HOME="+filepath.Join(env.WorkDir, "config"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "until": until, "putbox": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(putBox(args[0], ts.Getenv("BUSYBOX")))
		}},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, got := codes(ts, neg, args)
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(eventually.Patience); ; {
		want, got := codes(ts, neg, args)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("exit code %d, never %d", got, want)
		}
	}
}

// codes runs a command and returns the exit code that is wanted and the one that it has.
func codes(ts *testscript.TestScript, neg bool, args []string) (want, got int) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return want, exit.ExitCode()
	}
	ts.Check(err)
	return want, 0
}
