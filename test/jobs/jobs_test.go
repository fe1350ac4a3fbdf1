package jobs

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
	err := outside.Do(func() error {
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

// page reads a page; an error is its text.
func page(ctx context.Context, address string) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err.Error()
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return fmt.Sprintf("%s: %s: %v", response.Status, body, err)
	}
	return strings.TrimSpace(string(body))
}

// instances are the addresses of a job's running allocations, by their indexes.
func instances(t *testing.T, job, label string, count int) map[string]string {
	t.Helper()
	found := make(map[string]string)
	eventually.True(t, fmt.Sprintf("%d instances of %s run", count, job), func() bool {
		all, _, err := node.client.Jobs().Allocations(job, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		clear(found)
		for _, a := range all {
			if running(a) {
				found[strings.TrimSuffix(a.Name[strings.LastIndex(a.Name, "[")+1:], "]")] = addressOf(t, a.ID, label)
			}
		}
		return len(found) == count
	})
	return found
}

// TestWeb: instances of a web server with its configuration from templates are updated one after another, and a template that changes
// is read again on a signal.
func TestWeb(t *testing.T) {
	clean(t, "web")
	nomad(t, "var", "put", "nomad/jobs/web", "colour=red")
	t.Cleanup(func() { _, _ = tryNomad("var", "purge", "nomad/jobs/web") }) // its job's end is what counts
	wantIn(t, nomad(t, "job", "run", "web.nomad.hcl"), "successful")
	shows := func(greeting, colour string) {
		t.Helper()
		for index, address := range instances(t, "web", "http", 2) {
			eventually.True(t, greeting+" "+colour+" is shown", func() bool { return page(t.Context(), address) == greeting+" "+index+" "+colour })
		}
	}
	shows("first", "red")
	before := allocation(t, "web", "running", running)
	nomad(t, "var", "put", "-force", "nomad/jobs/web", "colour=green")
	shows("first", "green")
	after, _, err := node.client.Allocations().Info(before.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := after.TaskStates["nginx"].Restarts; got != 0 {
		t.Errorf("the change of a template restarted nginx %d times; a signal was asked for", got)
	}

	answers := watch(t)
	wantIn(t, nomad(t, "job", "run", "-var", "greeting=second", "web.nomad.hcl"), "successful")
	if longest := answers(); longest > 2*time.Second {
		t.Errorf("no instance answered for %s while they were updated one after another", longest)
	}
	shows("second", "green")

	// One that dies is started again.
	victim := allocation(t, "web", "running", running).ID
	nomad(t, "alloc", "signal", "-s", "SIGKILL", victim)
	allocation(t, "web", "restarted", func(a *api.AllocationListStub) bool {
		return a.ID == victim && running(a) && a.TaskStates["nginx"].Restarts == 1
	})
	wantIn(t, nomad(t, "alloc", "status", victim), "Exit Code: 137", "Signal: 9")
	shows("second", "green")
	wantIn(t, nomad(t, "alloc", "logs", victim), `"GET / HTTP/1.1" 200`)
}

// watch asks the service until the function that it returns is called, which tells how long nobody answered at most.
func watch(t *testing.T) func() time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan time.Duration, 1)
	go func() {
		var longest time.Duration
		last := time.Now()
		for ctx.Err() == nil {
			services, _, err := node.client.Services().Get("web", nil)
			if err != nil {
				continue // the test ends, or the next try tells
			}
			for _, s := range services {
				if answer := page(ctx, fmt.Sprintf("%s:%d", s.Address, s.Port)); strings.Contains(answer, "green") {
					longest, last = max(longest, time.Since(last)), time.Now()
				}
			}
		}
		done <- max(longest, time.Since(last))
	}()
	return func() time.Duration { cancel(); return <-done }
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

// TestSidecar: tasks of a group in bridge mode speak over its loopback, and the group's port leads to one of them.
func TestSidecar(t *testing.T) {
	clean(t, "sidecar")
	wantIn(t, nomad(t, "job", "run", "sidecar.nomad.hcl"), "successful")
	alloc := allocation(t, "sidecar", "running", running).ID
	address := addressOf(t, alloc, "web")
	if got := page(t.Context(), address); got != "behind pages" {
		t.Errorf("from the host: %q", got)
	}
	_ = outside.Do(func() error {
		if got := page(t.Context(), address); got != "behind pages" {
			t.Errorf("from another machine: %q", got)
		}
		return nil
	})
	wantIn(t, nomad(t, "alloc", "exec", "-task", "front", alloc, "wget", "-q", "-O-", "http://127.0.0.1:9000/"), "behind pages")
	nomad(t, "alloc", "restart", "-task", "pages", alloc)
	eventually.True(t, "the restarted one is asked again", func() bool { return page(t.Context(), address) == "behind pages" })
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
