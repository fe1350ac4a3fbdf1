package jobs

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// redisUser is that of the image.
const redisUser = 999

// TestRedis: a volume of the host keeps what a published port brought, through a restart and through another allocation.
func TestRedis(t *testing.T) {
	clean(t, "redis")
	wantIn(t, nomad(t, "job", "validate", "redis.nomad.hcl"), "Job validation successful")
	wantIn(t, nomad(t, "job", "run", "redis.nomad.hcl"), `finished with status "complete"`, "successful")
	alloc := allocation(t, "redis", "running", running).ID
	ask := redisClient(t)
	if got := ask(addressOf(t, alloc, "db"), "SET", "river", "Freshet"); got != "OK" {
		t.Fatalf("SET answers %q", got)
	}
	nomad(t, "alloc", "restart", alloc)
	eventually.True(t, "redis remembers after a restart", func() bool { return ask(addressOf(t, alloc, "db"), "GET", "river") == "Freshet" })
	wantIn(t, nomad(t, "service", "info", "redis"), addressOf(t, alloc, "db"))

	nomad(t, "alloc", "stop", alloc)
	next := allocation(t, "redis", "another one runs", func(a *api.AllocationListStub) bool { return running(a) && a.ID != alloc }).ID
	eventually.True(t, "redis remembers in another allocation", func() bool { return ask(addressOf(t, next, "db"), "GET", "river") == "Freshet" })
	err := fromOutside(func() error {
		conn, err := net.Dial("tcp", addressOf(t, next, "db"))
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
			return err
		}
		answer := make([]byte, 7)
		_, err = io.ReadFull(conn, answer)
		if string(answer) != "+PONG\r\n" {
			t.Errorf("from another machine, PING answers %q", answer)
		}
		return err
	})
	if err != nil {
		t.Errorf("from another machine: %v", err)
	}
}

// redisClient runs redis-cli on the host, in a root of its own packages.
func redisClient(t *testing.T) func(address string, words ...string) string {
	t.Helper()
	root := t.TempDir()
	packages, err := filepath.Glob(filepath.Join(os.Getenv("FRESHET_PACKAGES"), "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range packages {
		pkg, _, _ := strings.Cut(filepath.Base(file), "_")
		if !libraries(pkg) && pkg != "redis-tools" {
			continue
		}
		if out, err := exec.Command("dpkg-deb", "-x", file, root).CombinedOutput(); err != nil {
			t.Fatalf("unpack %s: %v: %s", file, err, out)
		}
	}
	return func(address string, words ...string) string {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		client := exec.Command("/usr/bin/redis-cli", append([]string{"-h", host, "-p", port}, words...)...)
		client.Dir, client.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: root}
		out, err := client.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
}

// TestBatch: a dispatched job gets its input, and its exit code says how it went.
func TestBatch(t *testing.T) {
	clean(t, "batch")
	nomad(t, "job", "run", "-var", "image=docker-archive:"+node.path(archive), "batch.nomad.hcl")
	for _, code := range []string{"0", "3"} {
		input := filepath.Join(t.TempDir(), "input")
		if err := os.WriteFile(input, []byte("given "+code+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		said := nomad(t, "job", "dispatch", "-detach", "-meta", "code="+code, "batch", input)
		job := strings.Fields(said[strings.Index(said, "batch/"):])[0]
		t.Cleanup(func() { _, _ = tryNomad("job", "stop", "-purge", "-detach", job) }) // what it leaves is counted
		alloc := allocation(t, job, "ended", ended)
		if want := map[string]string{"0": "complete", "3": "failed"}[code]; alloc.ClientStatus != want {
			t.Errorf("exit code %s: status %s, want %s", code, alloc.ClientStatus, want)
		}
		wantIn(t, nomad(t, "alloc", "status", alloc.ID), "Exit Code: "+code)
		wantIn(t, nomad(t, "alloc", "logs", alloc.ID), "work-"+code+" in /tmp as 0: hello linux, node", "given "+code)
		wantIn(t, nomad(t, "alloc", "logs", "-stderr", alloc.ID), "to the errors")
		wantIn(t, nomad(t, "alloc", "fs", alloc.ID, "alloc/data/result"), "kept")
	}
}

// TestHungry: whoever looks at a task that needed too much memory reads that.
func TestHungry(t *testing.T) {
	clean(t, "hungry")
	nomad(t, "job", "run", "-detach", "hungry.nomad.hcl")
	alloc := allocation(t, "hungry", "ended", ended)
	if alloc.ClientStatus != api.AllocClientStatusFailed {
		t.Errorf("status is %s", alloc.ClientStatus)
	}
	wantIn(t, nomad(t, "alloc", "status", alloc.ID), "OOM Killed", "Exit Code: 137", "the sandbox needed more memory than its 64 MB and was killed")
}
