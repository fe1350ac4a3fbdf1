package autoscaler

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
)

// secondNode joins another Nomad client to the cluster, with a driver of its own: the first one's configuration, elsewhere.
func secondNode(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(shared.dir, "nomad.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(shared.dir, "second")
	if err := os.MkdirAll(filepath.Join(dir, "plugins"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(shared.bin, "freshet-driver"), filepath.Join(dir, "plugins", "freshet-driver")); err != nil {
		t.Fatal(err)
	}
	config := string(text)
	replace := func(pattern, with string) {
		found := regexp.MustCompile(pattern)
		if !found.MatchString(config) {
			t.Fatalf("the configuration has no %s", pattern)
		}
		config = found.ReplaceAllString(config, with)
	}
	rpc := shared.state.Ports.NomadRPC
	replace(`(?m)^name .*`, `name = "second"`)
	replace(`(?m)^data_dir .*`, fmt.Sprintf("data_dir = %q", filepath.Join(dir, "nomad")))
	replace(`(?m)^plugin_dir .*`, fmt.Sprintf("plugin_dir = %q", filepath.Join(dir, "plugins")))
	for _, port := range []string{"http", "rpc ", "serf"} {
		replace(`(?m)^  `+port+` = [0-9]+`, fmt.Sprintf("  %s = %d", port, freePort(t)))
	}
	replace(`(?s)server \{.*?\n\}`, "server {\n  enabled = false\n}")
	replace(`(?m)^  network_interface .*`, fmt.Sprintf("  network_interface = \"lo\"\n  servers = [\"127.0.0.1:%d\"]", rpc))
	replace(`(?m)^    data_dir .*`, fmt.Sprintf("    data_dir = %q", filepath.Join(dir, "driver")))
	replace(`(?m)^(    cgroup_parent .*)"$`, `${1}-second"`)
	replace(`memory_mb = [0-9]+`, "memory_mb = 0")
	file := filepath.Join(dir, "nomad.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(shared.dir, "logs", "second.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Getenv("FRESHET_NOMAD"), "agent", "-config", file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		_ = cmd.Wait()
		_ = log.Close()
	})
	eventually.True(t, "two nodes are ready", func() bool {
		nodes, _, err := shared.nomad.Nodes().List(nil)
		if err != nil {
			return false
		}
		ready := 0
		for _, node := range nodes {
			if node.Status == api.NodeStatusReady && node.Drivers["freshet"] != nil && node.Drivers["freshet"].Healthy {
				ready++
			}
		}
		return ready == 2
	})
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// TestOnlineWorkWinsOverBatch: two nodes full of batch workers in the middle of long calls. An online function gets its workers at
// once by preemption, and the calls that lost theirs run again and end well.
func TestOnlineWorkWinsOverBatch(t *testing.T) {
	secondNode(t)
	scheduler := &api.SchedulerConfiguration{PreemptionConfig: api.PreemptionConfig{ServiceSchedulerEnabled: true}}
	if _, _, err := shared.nomad.Operator().SchedulerSetConfiguration(scheduler, nil); err != nil {
		t.Fatal(err)
	}
	nodes, _, err := shared.nomad.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	node, _, err := shared.nomad.Nodes().Info(nodes[0].ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	memory := int(node.NodeResources.Memory.MemoryMB) * 45 / 100 // two workers fill a node
	sized := func(priority, most int) func(*api.Job) {
		return func(job *api.Job) {
			job.Priority = &priority
			job.TaskGroups[0].Scaling.Max = new(int64(most))
			job.TaskGroups[0].Scaling.Policy["target_inflight"] = 1
			task := job.TaskGroups[0].Tasks[0]
			task.Config["concurrency"] = 1
			task.Resources.MemoryMB, task.KillTimeout = &memory, new(time.Second)
		}
	}
	variant(t, "batch", sized(20, 4))
	variant(t, "online", sized(90, 2))
	c := client.New(shared.state.Gateway())
	var batch, online sync.WaitGroup
	var mu sync.Mutex
	again := 0
	call := func(function string, length time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
		defer cancel()
		got, err := wait(ctx, c, function, length)
		if err != nil || got.Millis < length.Milliseconds() {
			t.Errorf("%s: got %+v, %v", function, got, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if got.Attempt > 1 {
			again++
		}
	}
	for range 8 {
		batch.Go(func() { call("batch", 12*time.Second) })
	}
	eventually.True(t, "four batch workers run", func() bool { return running(t, "batch") == 4 })
	began := time.Now()
	for range 2 {
		online.Go(func() { call("online", 100*time.Millisecond) })
	}
	online.Wait()
	took := time.Since(began)
	preempted := 0
	allocs, _, err := shared.nomad.Jobs().Allocations("scaled.batch", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, alloc := range allocs {
		if alloc.DesiredStatus == api.AllocDesiredStatusEvict || strings.Contains(alloc.DesiredDescription, "reempted") {
			preempted++
		}
	}
	batch.Wait()
	t.Logf("online calls were answered in %s, by %d preempted workers; %d batch calls ran again", took, preempted, again)
	if preempted == 0 {
		t.Error("nothing was preempted")
	}
	if took > 12*time.Second {
		t.Errorf("online calls waited %s", took)
	}
	if again == 0 {
		t.Error("no batch call lost its worker: the nodes were not full")
	}
}
