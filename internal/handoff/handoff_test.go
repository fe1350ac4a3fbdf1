package handoff_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/wire"
)

func TestTaskAndExitSurviveTheFile(t *testing.T) {
	task := handoff.Task{ID: "a/b/c", Identity: wire.Identity{App: "app", Alloc: "alloc"}, StateDir: t.TempDir()}
	path, err := task.Write()
	if err != nil {
		t.Fatal(err)
	}
	read, err := handoff.ReadTask(path)
	if err != nil || read.ID != task.ID || read.Identity != task.Identity {
		t.Fatalf("read %+v, %v", read, err)
	}
	if _, err := handoff.ReadExit(task.StateDir); !errors.Is(err, handoff.ErrNoExit) {
		t.Fatalf("before an exit: %v", err)
	}
	if err := (handoff.Exit{Code: 3, Reason: "why"}).Write(task.StateDir); err != nil {
		t.Fatal(err)
	}
	if exit, err := handoff.ReadExit(task.StateDir); err != nil || exit.Code != 3 || exit.Reason != "why" {
		t.Fatalf("read %+v, %v", exit, err)
	}
}

func TestProcessIsFoundSignalledAndWaitedFor(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // it is killed below
	dir := t.TempDir()
	if err := handoff.WritePID(dir, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	process, err := handoff.FindProcess(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := process.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting for a running process: %v", err)
	}
	if err := process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	long, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := process.Wait(long); err != nil {
		t.Fatalf("waiting for a killed process: %v", err)
	}
}

func TestAnotherProcessWithThePIDIsNotTakenForIt(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, handoff.PIDFile), []byte(`{"pid":1,"start_time":12345678901}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := handoff.FindProcess(dir); !errors.Is(err, handoff.ErrGone) {
		t.Fatalf("got %v", err)
	}
}
