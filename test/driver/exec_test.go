package driver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/testutils"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/cgroup"
)

// cgroupRootEnv is where the controllers are in a test process that sees version 2 at the usual place.
const cgroupRootEnv = "FRESHET_TEST_CGROUP_ROOT"

// TestExecStreaming are Nomad's own tests of `nomad alloc exec`, for tasks whose output Nomad collects and for others. Its last
// one wants to see a control group: on a node with version 1 it knows the groups of Nomad's own drivers alone, on one with version
// 2 any that is named as Nomad names them. A task here sees itself in one of version 2 whatever the node has, so the tests run in
// a process that has version 2 where Nomad looks for it.
func TestExecStreaming(t *testing.T) {
	if os.Getenv(cgroupRootEnv) == "" {
		runOnVersion2(t)
		return
	}
	t.Cleanup(func() { removeSlice(t) })
	for name, logmon := range map[string]bool{"own logs": false, "collector": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, nil)
			task := n.newTask(t, logmon, n.shell("exec sleep 1000"), nil)
			task.start(t)
			testutils.ExecTaskStreamingConformanceTests(t, n.DriverHarness, task.ID)
		})
	}
}

// runOnVersion2 runs the calling test again in a process of its own, in whose mount namespace /sys/fs/cgroup is of version 2.
func runOnVersion2(t *testing.T) {
	t.Helper()
	root := cgroup.DefaultRoot
	script := `exec "$@"`
	var stat unix.Statfs_t
	if err := unix.Statfs(root, &stat); err != nil {
		t.Fatal(err)
	}
	if stat.Type != unix.CGROUP2_SUPER_MAGIC {
		root = t.TempDir()
		script = fmt.Sprintf(`mount --rbind %[1]s %[2]s && mount -t cgroup2 none %[1]s && exec "$@"`, cgroup.DefaultRoot, root)
	}
	cmd := exec.Command("sh", "-c", script, "sh", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), cgroupRootEnv+"="+root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if passed := bytes.Count(out, []byte("--- PASS: "+t.Name()+"/")); passed < 22 { // two runs of nine cases, isolation, and what holds them
		t.Errorf("only %d tests passed:\n%s", passed, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Errorf("some were skipped:\n%s", out)
	}
}

// removeSlice removes the control groups that the harness made.
func removeSlice(t *testing.T) {
	t.Helper()
	slice := filepath.Join(cgroup.DefaultRoot, "testing.slice")
	groups, err := filepath.Glob(filepath.Join(slice, "*.scope"))
	if err != nil {
		t.Error(err)
	}
	for _, group := range append(groups, slice) {
		if err := unix.Rmdir(group); err != nil && !os.IsNotExist(err) {
			t.Errorf("remove %s: %v", group, err)
		}
	}
}

// TestExecTask is what script checks use.
func TestExecTask(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("exec sleep 1000"), nil)
	task.start(t)
	result, err := n.ExecTask(task.ID, []string{"/bin/sh", "-c", "echo out; echo err >&2; pwd; exit 7"}, patience)
	if err != nil {
		t.Fatal(err)
	}
	if result.ExitResult.ExitCode != 7 || string(result.Stdout) != "out\n/home\n" || string(result.Stderr) != "err\n" {
		t.Errorf("got %+v, %q, %q", result.ExitResult, result.Stdout, result.Stderr)
	}
	began := time.Now()
	if _, err := n.ExecTask(task.ID, []string{"sleep", "1000"}, time.Second); err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("a command that takes too long: %v after %s", err, time.Since(began))
	}
	if result, err := n.ExecTask(task.ID, []string{"/no/such"}, patience); err != nil || result.ExitResult.ExitCode != 127 || !strings.Contains(string(result.Stderr), "no such program") {
		t.Errorf("a program that is not there: %+v, %v", result, err)
	}
	if out := task.exec(t, "ps | grep -c '[s]leep 1000'"); out != "1\n" {
		t.Errorf("%s processes sleep, so the one that took too long still runs", out)
	}
	if _, err := n.ExecTask(task.ID, nil, patience); err == nil {
		t.Error("a command of no words was run")
	}
}

// TestExecEndsWithItsCaller: the process of somebody who closed the terminal's window does not run on.
func TestExecEndsWithItsCaller(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("exec sleep 1000"), nil)
	task.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out syncBuffer
	stdin, _ := io.Pipe()
	done := make(chan error, 1)
	go func() {
		streaming, ok := n.Impl().(drivers.ExecTaskStreamingDriver)
		if !ok {
			done <- fmt.Errorf("the driver has no streaming exec")
			return
		}
		_, err := streaming.ExecTaskStreaming(ctx, task.ID, &drivers.ExecOptions{
			Command: []string{"sh", "-c", "echo here; exec sleep 777"}, Stdin: stdin, Stdout: &out, Stderr: &out,
		})
		done <- err
	}()
	out.has(t, "here")
	cancel()
	if err := <-done; err == nil {
		t.Error("a command that was given up ended well")
	}
	if out := task.exec(t, "ps | grep -c '[s]leep 777' || true"); out != "0\n" {
		t.Errorf("%q processes still run", out)
	}
}
