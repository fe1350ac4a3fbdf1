package local

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/freshet-dev/freshet/internal/eventually"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStateIsFoundAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := LoadState(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("before the first start: %v", err)
	}
	first, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenState(dir)
	if err != nil || second.Ports != first.Ports || len(second.Passwords) != 3 || second.Passwords["worker"] != first.Passwords["worker"] {
		t.Errorf("got %+v, %v, want %+v", second, err, first)
	}
	if info, err := os.Stat(filepath.Join(dir, stateFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the passwords are in a file of mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(dir); err == nil || !strings.Contains(err.Error(), "remove the directory") {
		t.Errorf("a broken state: %v", err)
	}
}

func TestPortsAreFreeOrAnother(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	s := &State{dir: t.TempDir(), Ports: Ports{Gateway: port}}
	if err := s.checkPorts(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a taken port: %v", err)
	}
	if err := s.choosePorts(); err != nil || s.Ports.Gateway == port {
		t.Errorf("chose %d, %v", s.Ports.Gateway, err)
	}
}

func TestOnlyOneHoldsAStateDirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := Holder(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody: %v", err)
	}
	lock, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := Holder(dir); err != nil || pid != os.Getpid() {
		t.Errorf("holder %d, %v", pid, err)
	}
	if _, err := Acquire(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("a second one: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if lock, err = Acquire(dir); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
}

// shell is a component made of a line of shell.
func shell(t *testing.T, line string) (*process, string) {
	t.Helper()
	dir := t.TempDir()
	p := startProcess(context.Background(), command{
		name: "shell", path: "/bin/sh", args: []string{"-c", line}, env: []string{"DIR=" + dir}, stopSignal: syscall.SIGTERM, grace: patience,
	}, dir, zerolog.Nop())
	t.Cleanup(p.stop)
	return p, dir
}

func TestComponentsStartAgain(t *testing.T) {
	p, dir := shell(t, `echo run >>"$DIR/runs"; exec tail -f /dev/null`)
	eventually.True(t, "it runs", func() bool { _, err := os.Stat(filepath.Join(dir, "runs")); return err == nil && p.status().pid != 0 })
	first := p.status().pid
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "it runs again", func() bool { now := p.status(); return now.pid != 0 && now.pid != first && now.restarts == 1 })
}

func TestComponentsStopWhenAsked(t *testing.T) {
	p, dir := shell(t, `trap 'echo bye >"$DIR/bye"; exit 0' TERM; echo up >"$DIR/up"; while :; do read -r _ </dev/null; done`)
	eventually.True(t, "it runs", func() bool { _, err := os.Stat(filepath.Join(dir, "up")); return err == nil })
	p.stop()
	if text, err := os.ReadFile(filepath.Join(dir, "bye")); err != nil || string(text) != "bye\n" {
		t.Errorf("it did not stop by itself: %q, %v", text, err)
	}
}

// TestStartThatIsHopelessSaysWhy: nobody waits for a component that keeps ending.
func TestStartThatIsHopelessSaysWhy(t *testing.T) {
	p, dir := shell(t, `echo "no such licence" >&2; exit 1`)
	c := &Cluster{State: &State{dir: dir}, processes: []*process{p}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "no such licence") {
		t.Errorf("got %v", err)
	}
}

func TestNomadConfigHoldsWhatItIsGiven(t *testing.T) {
	text, err := renderNomad(nomadValues{Ports: Ports{NomadHTTP: 1234}, DataDir: `/a "b"`, Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"http = 1234", `"/a \"b\""`, `password = "secret"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

func TestToolsAreLookedForWhereTheyAre(t *testing.T) {
	cache := t.TempDir()
	if _, err := findTool("no-such-tool", "", cache); err == nil || !strings.Contains(err.Error(), "make tools") {
		t.Errorf("nowhere: %v", err)
	}
	if _, err := findTool("runsc", filepath.Join(cache, "nothing"), cache); err == nil {
		t.Error("found what is not there")
	}
	path := filepath.Join(cache, "tools", "runsc-0123", "runsc")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := findTool("runsc", "", cache); err != nil || got != path {
		t.Errorf("got %s, %v", got, err)
	}
}
