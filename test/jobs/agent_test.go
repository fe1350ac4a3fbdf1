package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/netnstest"
)

// patience bounds what no test waits for.
const patience = time.Minute

// The control groups of the tests' tasks, and of Nomad's own for them.
const (
	driverGroup = "freshet-test-jobs"
	nomadGroup  = "nomad-test-jobs"
)

// agentConfig is a server and a client in one, as a small cluster has it, with what bridge mode needs and a volume of the host.
const agentConfig = `
name                 = "node"
data_dir             = "{{.Dir}}/nomad"
plugin_dir           = "{{.Dir}}/plugins"
bind_addr            = "127.0.0.1"
disable_update_check = true
log_level            = "INFO"

advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}

server {
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1
}

client {
  enabled           = true
  network_interface = "` + netnstest.Uplink + `"
  cni_path          = "{{.CNI}}"
  cgroup_parent     = "` + nomadGroup + `"
  options {
    "driver.allowlist"     = "freshet"
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault"
  }
  host_volume "redis" {
    path = "{{.Dir}}/redis"
  }
}

consul {
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
}

plugin "freshet-driver" {
  config {
    data_dir         = "{{.Dir}}/driver"
    runsc            = "{{.Runsc}}"
    worker           = "{{.Bin}}/freshet-worker"
    blobs            = "file://{{.Dir}}/blobs"
    allow_host_paths = true
    cgroup_parent    = "` + driverGroup + `"
    network {
      ready = 2
    }
  }
}
`

// agent is a Nomad agent with the driver.
type agent struct {
	dir     string
	program string
	process *exec.Cmd
	client  *api.Client
}

// node is the agent that all tests share: a start takes seconds.
var node *agent

func (a *agent) path(parts ...string) string {
	return filepath.Join(append([]string{a.dir}, parts...)...)
}

func (a *agent) start() error {
	values := map[string]string{"Dir": a.dir}
	for name, env := range map[string]string{"Bin": "FRESHET_BIN", "Runsc": "FRESHET_RUNSC", "Nomad": "FRESHET_NOMAD", "CNI": "FRESHET_CNI"} {
		value, err := setting(env)
		if err != nil {
			return err
		}
		values[name] = value
	}
	var config bytes.Buffer
	if err := template.Must(template.New("agent").Parse(agentConfig)).Execute(&config, values); err != nil {
		return err
	}
	err := errors.Join(
		os.WriteFile(a.path("agent.hcl"), config.Bytes(), 0o600),
		os.Mkdir(a.path("plugins"), 0o700),
		os.Symlink(filepath.Join(values["Bin"], "freshet-driver"), a.path("plugins", "freshet-driver")),
		os.Mkdir(a.path("blobs"), 0o700),
		os.Mkdir(a.path("redis"), 0o700),
		os.Chown(a.path("redis"), redisUser, redisUser),
		os.Chmod(a.dir, 0o755), // users of tasks go through it
	)
	if err != nil {
		return err
	}
	log, err := os.Create(a.path("agent.log"))
	if err != nil {
		return err
	}
	defer log.Close() // the agent has its own
	a.program = values["Nomad"]
	a.process = exec.Command(a.program, "agent", "-config", a.path("agent.hcl"))
	a.process.Stdout, a.process.Stderr = log, log
	a.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := a.process.Start(); err != nil {
		return err
	}
	if a.client, err = api.NewClient(api.DefaultConfig()); err != nil {
		return err
	}
	return a.ready()
}

// ready waits until tasks can be placed.
func (a *agent) ready() error {
	deadline := time.Now().Add(patience)
	for {
		nodes, _, err := a.client.Nodes().List(nil)
		if err == nil && len(nodes) == 1 && nodes[0].Status == api.NodeStatusReady && nodes[0].Drivers["freshet"] != nil && nodes[0].Drivers["freshet"].Healthy {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the node is not ready: %v: %w", nodes, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// stop ends the agent. Tasks that a failed test left are ended with their control groups.
func (a *agent) stop() error {
	if a.process == nil || a.process.Process == nil {
		return nil
	}
	err := a.process.Process.Signal(os.Interrupt)
	timer := time.AfterFunc(20*time.Second, func() { _ = a.process.Process.Kill() })
	defer timer.Stop()
	_ = a.process.Wait() // what it says of its end is in its log
	return err
}

// clearGroup removes a control group with all that is in it.
func clearGroup(parent string) error {
	groups, err := cgroup.Open(cgroup.Config{Parent: parent})
	if err != nil {
		return err
	}
	ids, err := groups.List()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, id := range ids {
		group, loadErr := groups.Load(id)
		if loadErr != nil {
			continue // gone by itself
		}
		err = errors.Join(err, group.Kill(ctx), group.Remove(ctx))
	}
	for _, dir := range groupDirs(parent) {
		err = errors.Join(err, removeTree(dir))
	}
	return err
}

// groupDirs are a control group's directories: one on v2, one a controller on v1.
func groupDirs(parent string) []string {
	dirs, _ := filepath.Glob(filepath.Join(cgroup.DefaultRoot, "*", parent))
	if _, err := os.Stat(filepath.Join(cgroup.DefaultRoot, parent)); err == nil {
		dirs = append(dirs, filepath.Join(cgroup.DefaultRoot, parent))
	}
	return dirs
}

// removeTree removes a control group's directory and those in it; the files in them are the kernel's.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(dir))
}

// tellLogs prints the ends of the logs, for whoever reads a failed run.
func (a *agent) tellLogs() {
	files := []string{a.path("agent.log")}
	workers, _ := filepath.Glob(a.path("driver", "tasks", "*", "worker.log"))
	for _, file := range append(files, workers...) {
		data, _ := os.ReadFile(file)
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", file, data[max(0, len(data)-6000):])
	}
}

// nomad runs the command as a person does, and returns what it prints. It fails the test when the command fails.
func nomad(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryNomad(args...)
	if err != nil {
		t.Fatalf("nomad %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryNomad(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, node.program, args...).CombinedOutput()
	return string(out), err
}

// allocation waits for the job's allocation that the condition likes.
func allocation(t *testing.T, job, what string, likes func(*api.AllocationListStub) bool) *api.AllocationListStub {
	t.Helper()
	var found *api.AllocationListStub
	eventually.True(t, "job "+job+" has an allocation: "+what, func() bool {
		all, _, err := node.client.Jobs().Allocations(job, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range all {
			if likes(one) {
				found = one
				return true
			}
		}
		return false
	})
	return found
}

func running(a *api.AllocationListStub) bool {
	if a.ClientStatus != api.AllocClientStatusRunning || a.DesiredStatus != api.AllocDesiredStatusRun {
		return false
	}
	for _, state := range a.TaskStates {
		if state.State != "running" {
			return false
		}
	}
	return len(a.TaskStates) > 0
}

func ended(a *api.AllocationListStub) bool {
	return a.ClientStatus == api.AllocClientStatusComplete || a.ClientStatus == api.AllocClientStatusFailed
}

// addressOf is where a port of the allocation is reached.
func addressOf(t *testing.T, alloc, label string) string {
	t.Helper()
	info, _, err := node.client.Allocations().Info(alloc, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range info.AllocatedResources.Shared.Ports {
		if port.Label == label {
			return fmt.Sprintf("%s:%d", port.HostIP, port.Value)
		}
	}
	t.Fatalf("allocation %s has no port %s", alloc, label)
	return ""
}

// wantIn fails the test unless all texts are in what was said.
func wantIn(t *testing.T, said string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("%q is not in:\n%s", text, said)
		}
	}
}
