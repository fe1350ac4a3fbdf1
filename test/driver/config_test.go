package driver

import (
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/driver"
)

// TestWrongTasks: what cannot run is refused when it is started, by the name of the field.
func TestWrongTasks(t *testing.T) {
	n := newNode(t, func(c *driver.Config) { c.AllowHostNetwork = false })
	for field, config := range map[string]string{
		"image":        `command = "true"`,
		"network_mode": n.shell("true") + "\n", // replaced below
		"ports":        n.shell("true", `ports = ["web"]`),
		"cap_add":      n.shell("true", `cap_add = ["fly"]`),
		"ulimit":       n.shell("true", `ulimit { nofile = "many" }`),
		"mount[0]":     n.shell("true", "mount {\n source = \"/no/such\"\n target = \"/x\"\n}"),
		"volumes[0]":   n.shell("true", `volumes = ["/only-one-path"]`),
		"handler.type": n.shell("true", `handler { type = "cobol" }`),
		"pids_limit":   n.shell("true", `pids_limit = -5`),
		"writable":     n.shell("true", `writable { medium = "paper" }`),
	} {
		if field == "network_mode" {
			config = strings.Replace(config, `network_mode = "none"`, `network_mode = "host"`, 1)
		}
		t.Run(field, func(t *testing.T) {
			task := n.newTask(t, false, config, nil)
			_, _, err := n.StartTask(task.TaskConfig)
			if err == nil || !strings.Contains(err.Error(), field) {
				t.Fatalf("%v", err)
			}
			t.Log(err)
		})
	}
}

// TestHostPathsAreTheOperators: without its word there are none.
func TestHostPathsAreTheOperators(t *testing.T) {
	n := newNode(t, func(c *driver.Config) { c.AllowHostPaths = false })
	task := n.newTask(t, false, n.shell("true"), nil)
	if _, _, err := n.StartTask(task.TaskConfig); err == nil || !strings.Contains(err.Error(), "allow_host_paths") {
		t.Errorf("%v", err)
	}
}

// TestBasesOnTheHostAreTheOperators: a build takes no file of the node for a base image, and no folder of it for its context.
func TestBasesOnTheHostAreTheOperators(t *testing.T) {
	n := newBuilderNode(t, func(c *driver.Config) { c.AllowHostPaths = false })
	for _, text := range []string{"RUN true", "COPY --from=" + n.image + " / /all"} {
		task, end := n.run(t, strings.Replace(n.dockerfile(text), "FROM "+n.image, "FROM scratch", strings.Count(text, "COPY")), nil)
		if said := task.read(t, "box.stderr.0"); end.Successful() || !strings.Contains(said, "this node allows none") {
			t.Errorf("%s: ended with %+v: %s", text, end, said)
		}
	}
	task := n.newTask(t, false, "build {\n context = \"/etc\"\n dockerfile = \"FROM scratch\"\n}", nil)
	if _, _, err := n.StartTask(task.TaskConfig); err == nil || !strings.Contains(err.Error(), "build.context") {
		t.Errorf("a folder: %v", err)
	}
}

// TestWrongPlugins: an operator reads which field it is.
func TestWrongPlugins(t *testing.T) {
	n := newNode(t, nil)
	for field, change := range map[string]func(*driver.Config){
		"data_dir":           func(c *driver.Config) { c.DataDir = "relative" },
		"runsc":              func(c *driver.Config) { c.Runsc = "" },
		"worker":             func(c *driver.Config) { c.Worker = "freshet-worker" },
		"cgroup_root":        func(c *driver.Config) { c.CgroupRoot = "sys/fs/cgroup" },
		"overhead_mb":        func(c *driver.Config) { c.OverheadMB = -1 },
		"ahead.idle":         func(c *driver.Config) { c.Ahead.Idle = "soon" },
		"images.max_age":     func(c *driver.Config) { c.Images.MaxAge = "old" },
		"network.range":      func(c *driver.Config) { c.Network.Range = "everywhere" },
		"network.deny[0]":    func(c *driver.Config) { c.Network.Deny = []string{"you"} },
		"snapshots.key_file": func(c *driver.Config) { c.Snapshots.KeyFile = "relative" },
	} {
		config := n.config
		change(&config)
		if err := n.set(config); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := n.set(n.config); err != nil {
		t.Errorf("the right one, after all those: %v", err)
	}
}
