// Package clustertest runs a whole freshet for tests: `freshet up` with each component its own process, and what tests ask of it.
package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/local"
	"github.com/freshet-dev/freshet/internal/queue"
)

// patience bounds the wait for a cluster that starts.
const patience = 90 * time.Second

// stopLimit is how long a cluster whose workers are idle may take to stop.
const stopLimit = 8 * time.Second

// Cluster is one `freshet up`.
type Cluster struct {
	// Bin is the folder of freshet's programs, Dir the state directory.
	Bin, Dir string
	// Flags are further ones of `freshet up`.
	Flags []string
	// State is what the cluster says of itself; nil before its first start.
	State *local.State

	up *exec.Cmd
}

// Up starts the cluster and waits until it takes calls.
func (c *Cluster) Up() error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	output, err := os.Create(c.outputPath())
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }() // the process has its own descriptor
	c.up = exec.Command(filepath.Join(c.Bin, "freshet"), append([]string{"up", "--state", c.Dir}, c.Flags...)...)
	c.up.Stdout, c.up.Stderr = output, output
	if err := c.up.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for c.State == nil {
		c.State, _ = local.LoadState(c.Dir)
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("freshet up wrote no state: %s", c.Output())
		}
	}
	return c.State.Ready(ctx)
}

// Stop asks the cluster to end and waits until it has.
func (c *Cluster) Stop() error {
	began := time.Now()
	if err := c.up.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := c.up.Wait(); err != nil {
		return fmt.Errorf("freshet up: %w: %s", err, c.Output())
	}
	if slow := time.Since(began); slow > stopLimit {
		return fmt.Errorf("freshet up took %s to stop: %s", slow, c.Output())
	}
	return nil
}

// Output is what `freshet up` printed.
func (c *Cluster) Output() string {
	text, err := os.ReadFile(c.outputPath())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (c *Cluster) outputPath() string { return filepath.Join(c.Dir, "up.out") }

// PowerOff kills every process of the cluster at once, as a node does that loses its power.
func (c *Cluster) PowerOff() error {
	if err := c.up.Process.Kill(); err != nil {
		return err
	}
	_ = c.up.Wait() // it was killed
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		left, err := c.Processes()
		if err != nil || len(left) == 0 {
			return err
		}
		for _, p := range left {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %s: %w", p.Args, err)
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("these processes do not end: %v", left)
		}
	}
}

// TellLogs writes the ends of the components' logs, for whoever reads a failed run.
func (c *Cluster) TellLogs(to io.Writer) {
	files, _ := filepath.Glob(filepath.Join(c.Dir, "logs", "*.log"))
	workers, _ := filepath.Glob(filepath.Join(c.Dir, "driver", "tasks", "*", "worker.log"))
	for _, file := range append(files, workers...) {
		data, _ := os.ReadFile(file)
		fmt.Fprintf(to, "--- %s\n%s\n", file, data[max(0, len(data)-2000):])
	}
}

// Freshet runs the command line.
func (c *Cluster) Freshet(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(c.Bin, "freshet"), args...)
	cmd.Env = append(os.Environ(), "FRESHET_STATE="+c.Dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Get reads JSON from a component.
func (c *Cluster) Get(tb testing.TB, address string, into any) {
	tb.Helper()
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, address, nil)
	if err != nil {
		tb.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // read only
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		tb.Fatalf("GET %s: %s: %v", address, response.Status, err)
	}
}

// View is a function as the gateway shows it.
type View struct {
	App                   string
	Count, Workers, Ready int
	Pending               int64
}

// Look shows a function.
func (c *Cluster) Look(tb testing.TB, app, function string) View {
	tb.Helper()
	var v View
	c.Get(tb, c.State.Gateway()+"/v1/functions/"+app+"/"+function, &v)
	return v
}

// Workers lists a function's workers.
func (c *Cluster) Workers(tb testing.TB, app, function string) []queue.Heartbeat {
	tb.Helper()
	var list []queue.Heartbeat
	c.Get(tb, c.State.Gateway()+"/v1/workers?app="+app+"&function="+function, &list)
	return list
}

// AwaitIdle waits until a function has no worker.
func (c *Cluster) AwaitIdle(tb testing.TB, app, function string) {
	tb.Helper()
	eventually.True(tb, app+"."+function+" has no worker left", func() bool {
		v := c.Look(tb, app, function)
		return v.Count == 0 && v.Workers == 0
	})
}

// Process is one of the cluster's.
type Process struct {
	PID  int
	Args []string
}

// Processes lists those that were told the state directory, or run from it, or are in a control group of its tasks.
func (c *Cluster) Processes() ([]Process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || len(data) == 0 {
			continue // it ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		groups, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if err != nil {
			continue // it ended
		}
		if bytes.Contains(data, []byte(c.Dir)) || bytes.Contains(groups, []byte("/"+c.CgroupParent()+"/")) || c.serves(data) {
			found = append(found, Process{PID: pid, Args: strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")})
		}
	}
	return found, nil
}

// serves tells of gateway and autoscaler, whose arguments name this cluster's queue alone.
func (c *Cluster) serves(cmdline []byte) bool {
	return c.State != nil && bytes.Contains(cmdline, []byte("\x00"+c.State.NATS()+"\x00"))
}

// CgroupParent is the control group that holds those of all tasks, as the agent's configuration says.
func (c *Cluster) CgroupParent() string {
	config, err := os.ReadFile(filepath.Join(c.Dir, "nomad.hcl"))
	if err != nil {
		return "unknown"
	}
	_, rest, _ := strings.Cut(string(config), "cgroup_parent")
	_, rest, _ = strings.Cut(rest, `"`)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

// Process waits for a process of this cluster, by the end of its program's path and a word of its arguments.
func (c *Cluster) Process(tb testing.TB, program, word string) int {
	tb.Helper()
	found := 0
	eventually.True(tb, program+" "+word+" runs", func() bool {
		all, err := c.Processes()
		if err != nil {
			tb.Fatal(err)
		}
		for _, p := range all {
			if strings.HasSuffix(p.Args[0], program) && strings.Contains(strings.Join(p.Args[1:], " "), word) {
				found = p.PID
				return true
			}
		}
		return false
	})
	return found
}

// Plugin waits for the driver's plugin.
func (c *Cluster) Plugin(tb testing.TB) int {
	tb.Helper()
	return c.Process(tb, filepath.Join(c.Dir, "plugins", "freshet-driver"), "")
}

// Agent waits for the Nomad agent.
func (c *Cluster) Agent(tb testing.TB) int {
	tb.Helper()
	return c.Process(tb, "nomad", "agent -config "+c.Dir)
}
