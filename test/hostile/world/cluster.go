package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/local"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/client"
)

// patience bounds a start, and a call from zero on a busy machine.
const patience = 2 * time.Minute

// Cluster is a running `freshet up`.
type Cluster struct {
	// Dir is its state directory.
	Dir    string
	State  *local.State
	bin    string
	up     *exec.Cmd
	output bytes.Buffer
}

// Run runs the tests with a cluster, which it gives to use, and returns the exit code. The flags are for `freshet up`.
func Run(m *testing.M, use func(*Cluster), flags ...string) int {
	bin := os.Getenv("FRESHET_BIN")
	if bin == "" {
		fmt.Fprintln(os.Stderr, "FRESHET_BIN must name the folder of freshet's programs: use `make test`")
		return 1
	}
	dir, err := os.MkdirTemp("", "freshet-world-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := &Cluster{Dir: dir, bin: bin}
	code := 1
	if err = c.start(flags); err == nil {
		use(c)
		code = m.Run()
	}
	if err = errors.Join(err, c.stop()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code != 0 {
		c.tellLogs()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (c *Cluster) start(flags []string) error {
	c.up = exec.Command(filepath.Join(c.bin, "freshet"), append([]string{"up", "--state", c.Dir}, flags...)...)
	c.up.Stdout, c.up.Stderr = &c.output, &c.output
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
			return errors.New("freshet up wrote no state")
		}
	}
	return c.State.Ready(ctx)
}

func (c *Cluster) stop() error {
	if err := c.up.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := c.up.Wait(); err != nil {
		return fmt.Errorf("freshet up: %w: %s", err, &c.output)
	}
	return nil
}

// tellLogs prints the ends of the components' logs, for whoever reads a failed run.
func (c *Cluster) tellLogs() {
	files, _ := filepath.Glob(filepath.Join(c.Dir, "logs", "*.log"))
	workers, _ := filepath.Glob(filepath.Join(c.Dir, "driver", "tasks", "*", "worker.log"))
	for _, file := range append(files, workers...) {
		data, _ := os.ReadFile(file)
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", file, data[max(0, len(data)-2000):])
	}
}

// Freshet runs freshet's command line.
func (c *Cluster) Freshet(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "freshet"), args...)
	cmd.Env = append(os.Environ(), "FRESHET_STATE="+c.Dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Nomad runs Nomad's.
func (c *Cluster) Nomad(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, os.Getenv("FRESHET_NOMAD"), args...)
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+c.State.Nomad())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// RunJob runs a jobspec, with variables as NAME=VALUE, until the test ends.
func (c *Cluster) RunJob(t testing.TB, text string, variables ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "job.nomad.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"job", "run", "-detach"}
	for _, variable := range variables {
		args = append(args, "-var", variable)
	}
	if out, err := c.Nomad(t.Context(), append(args, path)...); err != nil {
		t.Fatalf("nomad job run: %v: %s", err, out)
	}
	_, rest, _ := strings.Cut(text, "\njob \"")
	name, _, _ := strings.Cut(rest, `"`)
	t.Cleanup(func() {
		if out, err := c.Nomad(context.Background(), "job", "stop", "-purge", "-detach", name); err != nil {
			t.Errorf("nomad job stop: %v: %s", err, out)
		}
	})
}

// Call calls a function, which may not be known yet.
func (c *Cluster) Call(t testing.TB, function, method, input string) (client.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return client.New(c.State.Gateway()).Do(ctx, client.Request{
		Function: function, Method: method, Body: []byte(input), ContentType: "application/json",
	})
}

// Known waits until the gateway knows a function.
func (c *Cluster) Known(t testing.TB, function string) {
	t.Helper()
	eventually.True(t, function+" is known", func() bool {
		out, err := c.Freshet(t.Context(), "ps")
		return err == nil && strings.Contains(out, function)
	})
}

// Workers lists workers, of one function or of all.
func (c *Cluster) Workers(t testing.TB, app, function string) []queue.Heartbeat {
	t.Helper()
	query := url.Values{}
	if app != "" {
		query = url.Values{"app": {app}, "function": {function}}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.State.Gateway()+"/v1/workers?"+query.Encode(), nil)
	check(t, err)
	response, err := http.DefaultClient.Do(request)
	check(t, err)
	defer func() { _ = response.Body.Close() }() // all that matters is read
	var list []queue.Heartbeat
	check(t, json.NewDecoder(response.Body).Decode(&list))
	return list
}
