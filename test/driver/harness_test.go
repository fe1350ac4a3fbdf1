// Package driver tests the task driver through Nomad's own plugin harness: the real plugin protocol, real gVisor, real control
// groups.
package driver

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/helper/uuid"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers/testutils"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver"
	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/internal/busyboxtest"
	"github.com/freshet-dev/freshet/internal/eventually"
)

// patience bounds every wait.
const patience = eventually.Patience

// program is the path of one of freshet's or of the pinned tools.
func program(t *testing.T, variable, name string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s must be set: use `make test`", variable)
	}
	return filepath.Join(path, name)
}

// node is a machine with the driver, as far as Nomad's client sees it.
type node struct {
	*testutils.DriverHarness
	config driver.Config
	image  string
	t      *testing.T // that the node is for
	// cancel ends the plugin's life.
	cancel context.CancelFunc
}

// newNode starts a driver in directories and control groups of its own. When the test ends nothing may be left of its tasks.
func newNode(t *testing.T, change func(*driver.Config)) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "freshet-driver-")
	if err != nil {
		t.Fatal(err)
	}
	config := driver.Config{
		DataDir: filepath.Join(dir, "data"), Runsc: program(t, "FRESHET_RUNSC", ""), Worker: program(t, "FRESHET_BIN", "freshet-worker"),
		AllowHostPaths: true, CgroupParent: fmt.Sprintf("freshet-driver-test-%d-%s", os.Getpid(), uuid.Generate()[:8]), CgroupRoot: os.Getenv(cgroupRootEnv),
	}
	if change != nil {
		change(&config)
	}
	t.Cleanup(func() { tearDown(t, dir, config) })
	n := &node{t: t, config: config, image: "docker-archive:" + busyboxtest.Image(t, dir)}
	n.plug(t)
	return n
}

// plug starts a plugin with the node's configuration.
func (n *node) plug(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := driver.New(ctx, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel))
	n.DriverHarness, n.cancel = testutils.NewDriverHarness(t, d), cancel
	t.Cleanup(func() { // not the harness's Kill: it stops the server twice at once
		cancel()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.set(n.config); err != nil {
		t.Fatal(err)
	}
}

// set hands a configuration to the plugin as Nomad does.
func (n *node) set(config driver.Config) error {
	var data []byte
	if err := base.MsgPackEncode(&data, &config); err != nil {
		return err
	}
	return n.SetConfig(&base.Config{PluginConfig: data})
}

// tearDown removes what the driver keeps between tasks, and fails for what else is there.
func tearDown(t *testing.T, dir string, config driver.Config) {
	if err := driver.Clear(context.Background(), config, zerolog.Nop()); err != nil {
		t.Error(err)
	}
	for _, left := range []string{"tasks", "ahead", "images/holds"} {
		entries, err := os.ReadDir(filepath.Join(config.DataDir, left))
		if err == nil && len(entries) > 0 {
			t.Errorf("%s of the data directory still holds %s", left, entries[0].Name())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left below %s", dir)
	}
	err = filepath.WalkDir(cgroupRoot(config), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == config.CgroupParent {
			t.Errorf("the control group %s is left", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

func cgroupRoot(config driver.Config) string {
	if config.CgroupRoot == "" {
		return cgroup.DefaultRoot
	}
	return config.CgroupRoot
}
