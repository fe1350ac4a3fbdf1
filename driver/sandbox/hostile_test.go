package sandbox_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/driver/sandbox"
)

// TestHostileGuest: as the most that an ordinary task is, root with the default capabilities, and as the least.
func TestHostileGuest(t *testing.T) {
	root, host := shellRoot(t), t.TempDir()
	must(t, os.Rename(buildTool(t, "hostile"), filepath.Join(root, "bin/hostile")))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(host, "socket"))
	must(t, err)
	defer func() { must(t, listener.Close()) }()
	must(t, os.Chmod(filepath.Join(host, "socket"), 0o777))
	must(t, unix.Mkfifo(filepath.Join(host, "pipe"), 0o777))
	must(t, unix.Mknod(filepath.Join(host, "device"), unix.S_IFCHR|0o777, int(unix.Mkdev(10, 232))))
	for name, change := range map[string]func(*sandbox.Config){
		"handler": func(*sandbox.Config) {},
		"root":    func(c *sandbox.Config) { c.Capabilities = sandbox.DefaultCapabilities() },
		"root that may gain privileges": func(c *sandbox.Config) {
			c.Capabilities, c.AllowNewPrivileges, c.Overlay = sandbox.DefaultCapabilities(), true, &sandbox.Overlay{}
		},
		"a user": func(c *sandbox.Config) { c.User, c.Capabilities = "worker", sandbox.DefaultCapabilities() },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := shell(t, root, "sleep 1000")
			cfg.Mounts = []sandbox.Mount{{Source: host, Target: "/mnt", Writable: true}}
			change(&cfg)
			b := start(t, cfg)
			got, exit, err := execIn(t, b.Guest, sandbox.ExecConfig{Args: []string{"/bin/hostile"}})
			if err != nil || exit.Code != 0 || !strings.HasPrefix(got, "tried ") {
				t.Errorf("%v, %v:\n%s", exit, err, got)
			}
		})
	}
}

func TestAForkBombHarmsNobodyElse(t *testing.T) {
	groups, err := cgroup.Open(cgroup.Config{Parent: "freshet-test-" + filepath.Base(filepath.Dir(t.TempDir()))})
	must(t, err)
	t.Cleanup(func() { must(t, groups.Close(context.WithoutCancel(t.Context()))) })
	limit := cgroup.GuestPIDs(20)
	group, err := groups.Create("bomb", cgroup.Limits{PIDs: limit, Memory: 512 << 20})
	must(t, err)
	t.Cleanup(func() { must(t, group.Remove(context.WithoutCancel(t.Context()))) })

	cfg := shell(t, shellRoot(t), `bomb() { bomb | bomb & }; bomb; while :; do :; done`)
	made, err := sandbox.Create(cfg, zerolog.Nop())
	must(t, err)
	t.Cleanup(func() { must(t, made.Destroy()) })
	for _, pid := range made.PIDs() {
		must(t, group.Add(pid))
	}
	must(t, made.Start())
	ended := make(chan sandbox.Exit, 1)
	go func() { // ends with the sandbox
		exit, _ := made.Wait()
		ended <- exit
	}()
	select {
	case exit := <-ended:
		t.Log(exit)
		if exit.Lost == "" {
			t.Errorf("the bomb ended by itself: %v", exit)
		}
	case <-time.After(10 * time.Second):
		t.Log("the sandbox bears it")
	}
	if pids, err := group.PIDs(); err == nil && int64(len(pids)) > limit {
		t.Errorf("%d processes on the host, the limit is %d", len(pids), limit)
	}
	must(t, exec.Command("true").Run()) // others can start processes
	must(t, made.Kill())
	must(t, made.Destroy())
}
