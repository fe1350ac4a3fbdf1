// Package e2e tests the whole system as it runs in production: real NATS, Nomad and gVisor, each component its own process.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
}

var shared *cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-e2e-")
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
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code != 0 {
		shared.tellLogs()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// start runs `freshet up` and deploys the tests' apps.
func (c *cluster) start() error {
	if err := c.startUp(); err != nil {
		return err
	}
	for _, app := range []string{"../guests/misbehave", "../../examples/gosearch"} {
		if out, err := c.freshet("deploy", app); err != nil {
			return fmt.Errorf("deploy %s: %w: %s", app, err, out)
		}
	}
	return nil
}

func (c *cluster) startUp() error {
	c.output = &bytes.Buffer{}
	c.up = exec.Command(filepath.Join(c.bin, "freshet"), "up", "--state", c.dir)
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
			return errors.New("freshet up wrote no state")
		}
	}
	return c.state.Ready(ctx)
}

func (c *cluster) stop() error {
	began := time.Now()
	if err := c.up.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := c.up.Wait(); err != nil {
		return fmt.Errorf("freshet up: %w: %s", err, c.output)
	}
	if slow := time.Since(began); slow > 8*time.Second {
		return fmt.Errorf("freshet up took %s to stop: %s", slow, c.output)
	}
	return nil
}

// tellLogs prints the ends of the components' logs, for whoever reads a failed run.
func (c *cluster) tellLogs() {
	files, _ := filepath.Glob(filepath.Join(c.dir, "logs", "*.log"))
	workers, _ := filepath.Glob(filepath.Join(c.dir, "driver", "tasks", "*", "worker.log"))
	for _, file := range append(files, workers...) {
		data, _ := os.ReadFile(file)
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", file, data[max(0, len(data)-2000):])
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
	Said   string `json:"said"`
	Worker string `json:"worker"`
	Loaded int64  `json:"loaded"`
	Random uint64 `json:"random"`
}

// tell calls a function of the tests' app.
func tell(t *testing.T, function, do, with string) (told, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := client.New(shared.state.Gateway())
	return client.Call[map[string]string, told](ctx, c, "misbehave."+function, map[string]string{"do": do, "with": with})
}

// get reads JSON from a component.
func get(t *testing.T, address string, into any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Fatalf("GET %s: %s: %v", address, response.Status, err)
	}
}

// view is a function as the gateway shows it.
type view struct {
	Count, Workers, Ready int
	Pending               int64
}

func look(t *testing.T, app, function string) view {
	t.Helper()
	var v view
	get(t, shared.state.Gateway()+"/v1/functions/"+app+"/"+function, &v)
	return v
}

func workers(t *testing.T, app, function string) []queue.Heartbeat {
	t.Helper()
	var list []queue.Heartbeat
	get(t, shared.state.Gateway()+"/v1/workers?app="+app+"&function="+function, &list)
	return list
}

// process finds a process of this cluster by the end of its program's path and a word of its arguments.
func process(t *testing.T, program, word string) int {
	t.Helper()
	found := 0
	eventually.True(t, program+" "+word+" runs", func() bool {
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				continue // it ended
			}
			args := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
			if strings.HasSuffix(args[0], program) && strings.Contains(strings.Join(args[1:], " "), word) {
				found, err = strconv.Atoi(filepath.Base(filepath.Dir(file)))
				return err == nil
			}
		}
		return false
	})
	return found
}
