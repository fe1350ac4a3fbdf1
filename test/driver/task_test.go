package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/helper/uuid"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/testutils"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// task is one on a node.
type task struct {
	*drivers.TaskConfig
	node   *node
	handle *drivers.TaskHandle
}

// newTask makes the directories of an allocation with one task, as Nomad's client does. config is the task's config block in HCL;
// with logmon, Nomad's collector takes the output.
func (n *node) newTask(t *testing.T, logmon bool, config string, change func(*drivers.TaskConfig)) *task {
	t.Helper()
	cfg := &drivers.TaskConfig{
		AllocID: uuid.Generate(), Name: "box", JobName: "tests", Namespace: "default", NodeName: "here", Env: map[string]string{},
		Resources: resources(200, 128),
	}
	if change != nil {
		change(cfg)
	}
	cfg.ID = fmt.Sprintf("%s/%s/%s", cfg.AllocID, cfg.Name, uuid.Generate()[:8])
	n.t.Cleanup(func() { _ = os.Remove(filepath.Dir(cfg.AllocDir)) }) // the harness leaves it, empty
	n.t.Cleanup(n.MkAllocDir(cfg, logmon))                            // it also ends the connection to the plugin, which other tests of the node need
	n.configure(t, cfg, config)
	return &task{TaskConfig: cfg, node: n}
}

// configure parses the config block as Nomad does, by the driver's schema.
func (n *node) configure(t *testing.T, cfg *drivers.TaskConfig, config string) {
	t.Helper()
	schema, err := n.TaskConfigSchema()
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	hclutils.NewConfigParser(schema).ParseHCL(t, "config {\n"+config+"\n}", &fields)
	if err := cfg.EncodeConcreteDriverConfig(fields); err != nil {
		t.Fatal(err)
	}
}

// shell is the config of a task that runs a script in the node's image, without a network.
func (n *node) shell(script string, more ...string) string {
	return fmt.Sprintf("image = %q\nnetwork_mode = \"none\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", %q]\n%s", n.image, script, strings.Join(more, "\n"))
}

// resources as Nomad gives them to a task on a machine of 4,000 MHz.
func resources(cpu, memoryMB int64) *drivers.Resources {
	return &drivers.Resources{
		NomadResources: &structs.AllocatedTaskResources{
			Cpu: structs.AllocatedCpuResources{CpuShares: cpu}, Memory: structs.AllocatedMemoryResources{MemoryMB: memoryMB},
		},
		LinuxResources: &drivers.LinuxResources{CPUShares: cpu, MemoryLimitBytes: memoryMB << 20, PercentTicks: float64(cpu) / 4000},
	}
}

// start starts the task; when the test ends it is destroyed.
func (task *task) start(t *testing.T) {
	t.Helper()
	handle, _, err := task.node.StartTask(task.TaskConfig)
	if err != nil {
		t.Fatal(err)
	}
	task.handle = handle
	t.Cleanup(func() { // directly, as the harness's client may be closed
		if err := task.node.Impl().DestroyTask(task.ID, true); err != nil && !errors.Is(err, drivers.ErrTaskNotFound) {
			t.Errorf("destroy: %v", err)
		}
	})
	if err := task.node.WaitUntilStarted(task.ID, patience); err != nil {
		t.Fatal(err)
	}
}

// run starts a task and waits for its end.
func (n *node) run(t *testing.T, config string, change func(*drivers.TaskConfig)) (*task, *drivers.ExitResult) {
	t.Helper()
	task := n.newTask(t, false, config, change)
	task.start(t)
	return task, task.wait(t)
}

// output runs a script in the task to its end and returns what it printed.
func (n *node) output(t *testing.T, config string, change func(*drivers.TaskConfig)) string {
	t.Helper()
	task, end := n.run(t, config, change)
	if !end.Successful() {
		t.Fatalf("ended with %+v: %s", end, task.read(t, "box.stderr.0"))
	}
	return task.read(t, "box.stdout.0")
}

func (task *task) wait(t *testing.T) *drivers.ExitResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	results, err := task.node.WaitTask(ctx, task.ID)
	if err != nil {
		t.Fatal(err)
	}
	end, ok := <-results
	if !ok || end == nil {
		t.Fatal("the task's end was never told")
	}
	return end
}

// read reads a file of the allocation's log directory.
func (task *task) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(task.TaskDir().LogDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// says waits until the task has printed a text.
func (task *task) says(t *testing.T, text string) {
	t.Helper()
	eventually.True(t, fmt.Sprintf("the task prints %q", text), func() bool {
		data, err := os.ReadFile(filepath.Join(task.TaskDir().LogDir, task.Name+".stdout.0"))
		return err == nil && strings.Contains(string(data), text)
	})
}

// exec runs a shell's command in the task, through streams.
func (task *task) exec(t *testing.T, command string) string {
	t.Helper()
	code, stdout, stderr := testutils.ExecTask(t, task.node.DriverHarness, task.ID, command, false, "")
	if code != 0 {
		t.Fatalf("%s: ended with %d: %s", command, code, stderr)
	}
	return stdout
}

// stop stops the task and returns how long that took.
func (task *task) stop(t *testing.T, timeout time.Duration, signal string) time.Duration {
	t.Helper()
	began := time.Now()
	if err := task.node.StopTask(task.ID, timeout, signal); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// touch makes an empty file in the task's directory for the script to find.
func (task *task) touch(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(task.TaskDir().LocalDir, name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}
