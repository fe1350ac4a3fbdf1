// Package autoscaler tests scaling in the whole system: real NATS, Nomad and gVisor, each component its own process.
package autoscaler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/local"
	"github.com/freshet-dev/freshet/sdk/client"
)

// patience bounds every wait for a condition.
const patience = 60 * time.Second

// cluster is a running `freshet up`, shared by all tests: a start takes seconds.
type cluster struct {
	bin, dir string
	state    *local.State
	up       *exec.Cmd
	output   *bytes.Buffer
	nomad    *api.Client
}

var shared *cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-scaling-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = &cluster{bin: os.Getenv("FRESHET_BIN"), dir: dir}
	if shared.bin == "" {
		fmt.Fprintln(os.Stderr, "FRESHET_BIN must name the folder of freshet's programs: use `make test`")
		return 1
	}
	code := 1
	if err := shared.start(); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	if code != 0 {
		shared.tellLogs()
	}
	if err := errors.Join(shared.stop(), os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// devicePlugin is the program of Nomad's own example of a device plugin.
const devicePlugin = "example-fs-device"

// devices is the folder whose files are the node's simulated devices: Nomad's own example plugin offers those of the directory
// that the agent was started in. There is one from the beginning on.
func (c *cluster) devices() string { return filepath.Join(c.dir, "devices") }

// simulateDevices puts the example plugin beside the driver.
func (c *cluster) simulateDevices() error {
	plugins := filepath.Join(c.dir, "plugins")
	if err := errors.Join(os.MkdirAll(plugins, 0o700), os.MkdirAll(c.devices(), 0o700)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.devices(), "one"), nil, 0o600); err != nil { // without any the agent waits a minute for the plugin
		return err
	}
	build := exec.Command("go", "build", "-o", filepath.Join(plugins, devicePlugin), "github.com/hashicorp/nomad/plugins/device/cmd/example/cmd")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the device plugin: %w: %s", err, out)
	}
	return nil
}

// start runs `freshet up` and deploys the tests' app.
func (c *cluster) start() error {
	if err := c.simulateDevices(); err != nil {
		return err
	}
	c.output = &bytes.Buffer{}
	c.up = exec.Command(filepath.Join(c.bin, "freshet"), "up", "--state", c.dir)
	c.up.Dir = c.devices()
	c.up.Stdout, c.up.Stderr = c.output, c.output
	if err := c.up.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for c.state == nil {
		c.state, _ = local.LoadState(c.dir)
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("freshet up wrote no state: %s", c.output)
		}
	}
	if err := c.state.Ready(ctx); err != nil {
		return err
	}
	config := api.DefaultConfig()
	config.Address = c.state.Nomad()
	var err error
	if c.nomad, err = api.NewClient(config); err != nil {
		return err
	}
	if out, err := c.freshet("deploy", "../guests/scaled"); err != nil {
		return fmt.Errorf("deploy: %w: %s", err, out)
	}
	return nil
}

func (c *cluster) stop() error {
	if err := c.up.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := c.up.Wait(); err != nil {
		return fmt.Errorf("freshet up: %w: %s", err, c.output)
	}
	return nil
}

// tellLogs prints the ends of the components' logs, for whoever reads a failed run.
func (c *cluster) tellLogs() {
	files, _ := filepath.Glob(filepath.Join(c.dir, "logs", "*.log"))
	for _, file := range files {
		data, _ := os.ReadFile(file)
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", file, data[max(0, len(data)-4000):])
	}
}

// freshet runs the command line.
func (c *cluster) freshet(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(c.bin, "freshet"), args...)
	cmd.Env = append(os.Environ(), "FRESHET_STATE="+c.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// told is what the tests' app answers.
type told struct {
	Millis  int64  `json:"ms"`
	Attempt int    `json:"attempt"`
	Worker  string `json:"worker"`
}

// wait calls a function that takes the time.
func wait(ctx context.Context, c *client.Client, function string, length time.Duration) (told, error) {
	return client.Call[map[string]int64, told](ctx, c, "scaled."+function, map[string]int64{"ms": length.Milliseconds()})
}

// count is how many workers Nomad should run.
func count(t *testing.T, function string) int {
	t.Helper()
	job, _, err := shared.nomad.Jobs().Info("scaled."+function, nil)
	if err != nil {
		t.Fatal(err)
	}
	return *job.TaskGroups[0].Count
}

// scalings are a function's last ones, as Nomad has them: the newest first, some twenty.
func scalings(t *testing.T, function string) []api.ScalingEvent {
	t.Helper()
	status, _, err := shared.nomad.Jobs().ScaleStatus("scaled."+function, nil)
	if err != nil {
		t.Fatal(err)
	}
	return status.TaskGroups["worker"].Events
}
