package jobs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// startShell runs the job to look into and returns its allocation.
func startShell(t *testing.T) string {
	t.Helper()
	clean(t, "shell")
	nomad(t, "job", "run", "-detach", "shell.nomad.hcl")
	return allocation(t, "shell", "running", running).ID
}

// follow runs `nomad alloc logs -f` until the test's end. The function that it returns waits for a line.
func follow(t *testing.T, alloc string) func(line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	logs := exec.CommandContext(ctx, node.program, "alloc", "logs", "-f", alloc)
	out, err := logs.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := logs.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = logs.Wait() // it was killed
	})
	lines := bufio.NewScanner(out)
	return func(line string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == line {
				return
			}
		}
		t.Fatalf("the log ends without %q: %v", line, lines.Err())
	}
}

func TestLogsAndSignals(t *testing.T) {
	alloc := startShell(t)
	saw := follow(t, alloc)
	saw("began with TOKEN=blue")
	saw("tick")
	nomad(t, "alloc", "signal", "-s", "SIGUSR1", alloc)
	saw("got USR1")
	nomad(t, "alloc", "signal", "-s", "SIGHUP", alloc)
	saw("got HUP")
	if out, err := tryNomad("alloc", "signal", "-s", "SIGNOTHING", alloc); err == nil {
		t.Errorf("a signal that does not exist is taken: %s", out)
	}
	nomad(t, "alloc", "restart", alloc)
	saw("ends") // it was asked, not killed
	saw("began with TOKEN=blue")
	saw("tick")
	nomad(t, "job", "stop", "-detach", "shell")
	saw("ends")
	gone := allocation(t, "shell", "ended", ended)
	if gone.ClientStatus != api.AllocClientStatusComplete {
		t.Errorf("status is %s", gone.ClientStatus)
	}
	wantIn(t, nomad(t, "alloc", "status", alloc), "Exit Code: 0", "Sent interrupt", "Restart Signaled")
}

func TestExec(t *testing.T) {
	alloc := startShell(t)
	said := nomad(t, "alloc", "exec", "-t=false", "-i=false", alloc, "sh", "-c", "echo $TOKEN; echo $NOMAD_TASK_NAME; hostname; cat /etc/hosts")
	wantIn(t, said, "blue\nshell\n", alloc[:8], "127.0.0.1 localhost")
	if out, err := tryNomad("alloc", "exec", "-t=false", "-i=false", alloc, "sh", "-c", "exit 7"); exitCode(err) != 7 {
		t.Errorf("exit 7 is %v: %s", err, out)
	}
	if out, err := tryNomad("alloc", "exec", "-t=false", "-i=false", alloc, "nothing-there"); exitCode(err) != 127 || !strings.Contains(out, "nothing-there") {
		t.Errorf("a program that is not there: %v: %s", err, out)
	}
	piped := exec.Command(node.program, "alloc", "exec", "-t=false", "-i", alloc, "cat")
	piped.Stdin = strings.NewReader(strings.Repeat("0123456789abcdef", 1<<16))
	if out, err := piped.Output(); err != nil || len(out) != 1<<20 {
		t.Errorf("1 MiB through cat: %d bytes: %v", len(out), err)
	}
	said, err := typed(t, alloc, "stty size; test -t 0 && echo a-terminal; echo $((40+2)); exit 5\n")
	wantIn(t, said, "33 101", "a-terminal", "42")
	if exitCode(err) != 5 {
		t.Errorf("exit 5 at a terminal is %v", err)
	}
}

// typed runs a shell in the allocation as somebody at a terminal of 101 columns does, who types when asked to: script(1) makes one.
func typed(t *testing.T, alloc, text string) (said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	terminal := exec.CommandContext(ctx, "script", "-q", "-e", "-c", "stty rows 33 cols 101; exec "+node.program+" alloc exec -i -t "+alloc+" sh", "/dev/null")
	keys, err := terminal.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	screen, err := terminal.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := terminal.Start(); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	buffer := make([]byte, 4096)
	for asked := false; ; {
		n, readErr := screen.Read(buffer)
		all.Write(buffer[:n])
		if !asked && bytes.Contains(all.Bytes(), []byte("# ")) {
			asked = true
			if _, err := io.WriteString(keys, text); err != nil {
				t.Fatal(err)
			}
		}
		if readErr != nil {
			return all.String(), terminal.Wait()
		}
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return -1
	}
	return exit.ExitCode()
}

func TestFiles(t *testing.T) {
	alloc := startShell(t)
	follow(t, alloc)("tick")
	wantIn(t, nomad(t, "alloc", "fs", alloc, "alloc/data/mark"), "made by 1")
	wantIn(t, nomad(t, "alloc", "fs", alloc), "alloc/", "shell/")
	wantIn(t, nomad(t, "alloc", "fs", "-stat", alloc, "shell/local/watch.sh"), "watch.sh")
	wantIn(t, nomad(t, "alloc", "fs", "-tail", "-n", "3", alloc, "alloc/logs/shell.stdout.0"), "tick")
	wantIn(t, nomad(t, "alloc", "status", "-stats", alloc), "Memory Stats", "CPU Stats")
}

// TestDrain: a node that is drained stops its tasks as they ask to be, and starts them again when it may.
func TestDrain(t *testing.T) {
	alloc := startShell(t)
	saw := follow(t, alloc)
	saw("tick")
	t.Cleanup(func() { _, _ = tryNomad("node", "eligibility", "-self", "-enable") })
	wantIn(t, nomad(t, "node", "drain", "-self", "-enable", "-yes", "-deadline", "30s"), "status running -> complete", "Drain complete for node")
	saw("ends")
	if gone := allocation(t, "shell", "ended", ended); gone.ID != alloc || gone.ClientStatus != api.AllocClientStatusComplete {
		t.Errorf("allocation %s is %s", gone.ID, gone.ClientStatus)
	}
	wantIn(t, nomad(t, "node", "eligibility", "-self", "-enable"), "eligible for scheduling")
	next := allocation(t, "shell", "another one runs", func(a *api.AllocationListStub) bool { return running(a) && a.ID != alloc })
	follow(t, next.ID)("tick")
}
