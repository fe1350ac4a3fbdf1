//go:build linux

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/queue"
)

// Cluster is a running one-machine freshet.
type Cluster struct {
	State     *State
	programs  Programs
	log       zerolog.Logger
	processes []*process // in the order of their start
}

// workerGrace is how long workers may go on with their calls when the cluster stops; what is left stays queued. gatewayGrace is how long
// requests may go on: whoever waits for a call asks again, and one who follows a log would wait for ever. Together they are what a
// person at Ctrl-C waits at most.
const (
	workerGrace  = 2500 * time.Millisecond
	gatewayGrace = time.Second
)

// Start starts all components of the state directory. They wait for each other by themselves; Ready tells when all are
// there. Stop it.
func Start(ctx context.Context, state *State, programs Programs, log zerolog.Logger) (*Cluster, error) {
	if err := state.checkPorts(); err != nil {
		return nil, err
	}
	for _, dir := range []string{"logs", "nats", "nomad", "blobs", "driver", "volumes"} {
		if err := os.MkdirAll(state.path(dir), 0o700); err != nil {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
	}
	config, err := state.writeNomadConfig(programs, state.Passwords[queue.RoleWorker])
	if err != nil {
		return nil, err
	}
	c := &Cluster{State: state, programs: programs, log: log}
	for _, cmd := range c.commands(config) {
		c.processes = append(c.processes, startProcess(ctx, cmd, state.path("logs"), log))
	}
	return c, nil
}

func (c *Cluster) commands(nomadConfig string) []command {
	s := c.State
	return []command{
		{
			name: "nats", path: c.programs.Freshet, args: []string{"nats", "--state", s.dir},
			stopSignal: syscall.SIGTERM, grace: 10 * time.Second,
		},
		{
			name: "nomad", path: c.programs.Nomad, args: []string{"agent", "-config", nomadConfig},
			stopSignal: syscall.SIGINT, grace: 10 * time.Second,
		},
		{
			name: "gateway", path: c.programs.Freshet,
			args: []string{
				"gateway", "--listen", fmt.Sprintf("127.0.0.1:%d", s.Ports.Gateway),
				"--nats", s.NATS(), "--nomad", s.Nomad(), "--blobs", s.Blobs(), "--volumes", s.Volumes(), "--auth", s.auth(), "--private-callbacks",
				"--web-domain", s.Domain, "--tls-listen", s.TLS, "--tls-dir", s.path("tls"),
			},
			env:        append(natsUser(s, queue.RoleGateway), "FRESHET_ROOT_TOKEN="+s.Token, "FRESHET_CALLBACK_SECRET="+s.CallbackSecret),
			stopSignal: syscall.SIGTERM, grace: gatewayGrace,
		},
		{
			name: "autoscaler", path: c.programs.Freshet,
			args: []string{
				"autoscaler", "--listen", fmt.Sprintf("127.0.0.1:%d", s.Ports.Autoscaler),
				"--nats", s.NATS(), "--nomad", s.Nomad(),
			},
			env:        natsUser(s, queue.RoleAutoscaler),
			stopSignal: syscall.SIGTERM, grace: 10 * time.Second,
		},
	}
}

func (s *State) auth() string {
	if s.Auth {
		return "on"
	}
	return "off"
}

// natsUser passes the password by the environment: arguments are everybody's to read.
func natsUser(s *State, role queue.Role) []string {
	return []string{"FRESHET_NATS_USER=" + string(role), "FRESHET_NATS_PASSWORD=" + s.Passwords[role]}
}

// Stop ends everything this cluster started, in an order that loses no call: first the ways in, then the scheduler, then
// the workers, which finish or give back their calls, at last the queue.
func (c *Cluster) Stop(ctx context.Context) error {
	reverse := slices.Clone(c.processes)
	slices.Reverse(reverse)
	var err error
	for _, p := range reverse {
		if p.command.name == "nats" {
			err = errors.Join(stopPlugins(c.State.path("plugins", "freshet-driver")), stopWorkers(ctx, c.State.DriverDir(), workerGrace, c.log))
		}
		p.stop()
		c.log.Info().Str("process", p.command.name).Msg("stopped")
	}
	return errors.Join(err, c.clearNode(ctx), UnmountUnder(c.State.dir))
}

// clearNode has the driver remove what it keeps outside of the state directory.
func (c *Cluster) clearNode(ctx context.Context) error {
	clear := exec.CommandContext(ctx, c.programs.Driver, "clear", "-data-dir", c.State.DriverDir(), "-cgroup-parent", c.State.cgroupParent(),
		"-runsc", c.programs.Runsc, "-worker", c.programs.Worker)
	if out, err := clear.CombinedOutput(); err != nil {
		return fmt.Errorf("clear up after the driver: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// hopeless is how often a component may end before the start is given up.
const hopeless = 3

// Ready waits until calls can be made: the gateway answers and the node offers the freshet driver. It gives up early when a
// component keeps ending, and says what that one said last.
func (c *Cluster) Ready(ctx context.Context) error {
	return c.State.await(ctx, func() error {
		for _, p := range c.processes {
			if p.status().restarts >= hopeless {
				return fmt.Errorf("%s ended %d times in a row; the end of %s:\n%s", p.command.name, hopeless, p.logPath, LastLines(p.logPath))
			}
		}
		return nil
	})
}

// LastLines is the end of a log, to show why something failed.
func LastLines(path string) string {
	const most = 1500
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	data = data[max(0, len(data)-most):]
	if at := bytes.IndexByte(data, '\n'); at >= 0 && len(data) == most {
		data = data[at+1:]
	}
	return string(bytes.TrimSpace(data))
}

// Ready waits until the state directory's cluster can take calls, or the context ends; the error says what was missing.
func (s *State) Ready(ctx context.Context) error {
	return s.await(ctx, func() error { return nil })
}

// await waits for the cluster, unless failed says that it is no use.
func (s *State) await(ctx context.Context, failed func() error) error {
	waiting := errors.New("nothing answered yet")
	for {
		err := s.check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			waiting = err
		}
		if err := failed(); err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for the cluster: %w; logs are in %s", waiting, s.path("logs"))
		}
	}
}

func (s *State) check(ctx context.Context) error {
	if err := get(ctx, s.Gateway()+"/readyz", nil); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if err := get(ctx, s.Autoscaler()+"/healthz", nil); err != nil {
		return fmt.Errorf("autoscaler: %w", err)
	}
	var nodes []struct {
		Status  string
		Drivers map[string]struct{ Healthy bool }
	}
	if err := get(ctx, s.Nomad()+"/v1/nodes", &nodes); err != nil {
		return fmt.Errorf("nomad: %w", err)
	}
	for _, node := range nodes {
		if node.Status == "ready" && node.Drivers["freshet"].Healthy {
			return nil
		}
	}
	return errors.New("nomad: no ready node with a healthy freshet driver")
}

func get(ctx context.Context, address string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read only
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", address, response.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("GET %s: %w", address, err)
	}
	return nil
}
