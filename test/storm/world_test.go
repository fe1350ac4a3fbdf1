package storm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/vishvananda/netlink"

	"github.com/freshet-dev/freshet/internal/netnstest"
)

const (
	// bridge joins all machines; the tests and Nomad's server are on it themselves, by its address.
	bridge        = "storm"
	bridgeAddress = "10.98.0.1"
	uplink        = "uplink"
	// patience bounds the start, and every wait for what must come.
	patience = 3 * time.Minute

	replicas = 3
)

// world is the whole cluster.
type world struct {
	dir, bin string

	places      []*netnstest.Namespace
	nats        []*kept
	gateways    []*kept
	autoscalers []*kept
	server      *kept
	nodes       []*node

	nomad *api.Client
	nc    *nats.Conn
	js    jetstream.JetStream
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

// start starts everything and waits until calls are taken.
func (w *world) start() error {
	for _, dir := range []string{"logs", "blobs", "diary", "conf"} {
		if err := os.Mkdir(w.path(dir), 0o700); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(w.dir, 0o755), os.Chmod(w.path("diary"), 0o777)); err != nil { // guests of other users write there
		return err
	}
	for _, step := range []func() error{w.build, makeBridge, w.startNATS, w.startNomad, w.startServices, w.connect, w.deploy} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// build builds the NATS server, of the release that freshet is built with, and the guest.
func (w *world) build() error {
	for name, source := range map[string]string{"nats-server": "github.com/nats-io/nats-server/v2", "guest": "./guest"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.path(name), source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return nil
}

func makeBridge() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make bridge: %w", err)
	}
	return errors.Join(netnstest.Raise("lo"), netnstest.Raise(bridge, bridgeAddress+"/24"))
}

// machine makes a network namespace on the bridge. Its interface here is named after it.
func (w *world) machine(name, address string) (*netnstest.Namespace, error) {
	n, err := netnstest.New()
	if err != nil {
		return nil, err
	}
	w.places = append(w.places, n)
	if err := n.Join(name, uplink, address+"/24"); err != nil {
		return nil, err
	}
	here, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	joined, err := netlink.LinkByName(bridge)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(netlink.LinkSetMaster(here, joined), netlink.LinkSetUp(here)); err != nil {
		return nil, err
	}
	return n, n.Do(func() error { return netnstest.Gateway(uplink, bridgeAddress) })
}

// start starts a process on a machine of its own, or on the tests'.
func (w *world) run(name, address string, command func() *exec.Cmd) (*kept, error) {
	k := &kept{name: name, command: command, log: w.path("logs", name+".log")}
	if address != bridgeAddress {
		var err error
		if k.place, err = w.machine(name, address); err != nil {
			return nil, fmt.Errorf("make machine of %s: %w", name, err)
		}
	}
	return k, k.keep()
}

func natsAddress(i int) string       { return fmt.Sprintf("10.98.0.%d", 11+i) }
func gatewayAddress(i int) string    { return fmt.Sprintf("10.98.0.%d", 21+i) }
func autoscalerAddress(i int) string { return fmt.Sprintf("10.98.0.%d", 31+i) }
func nodeAddress(i int) string       { return fmt.Sprintf("10.98.0.%d", 41+i) }

// gateway is the address of a gateway's API.
func gateway(i int) string { return "http://" + gatewayAddress(i) + ":8600" }

func natsURL() string {
	var all []string
	for i := range replicas {
		all = append(all, "nats://"+natsAddress(i)+":4222")
	}
	return strings.Join(all, ",")
}

func (w *world) startNATS() error {
	for i := range replicas {
		config := w.path("conf", fmt.Sprintf("nats%d.conf", i))
		if err := os.WriteFile(config, []byte(natsConfig(i, w.path("nats", fmt.Sprint(i)))), 0o600); err != nil {
			return err
		}
		k, err := w.run(fmt.Sprintf("nats%d", i), natsAddress(i), func() *exec.Cmd { return exec.Command(w.path("nats-server"), "-c", config) })
		if err != nil {
			return err
		}
		w.nats = append(w.nats, k)
	}
	return nil
}

func (w *world) startNomad() error {
	config := w.path("conf", "nomad.hcl")
	if err := os.WriteFile(config, []byte(serverConfig(w.path("nomad"))), 0o600); err != nil {
		return err
	}
	var err error
	nomad := os.Getenv("FRESHET_NOMAD")
	if w.server, err = w.run("nomad", bridgeAddress, func() *exec.Cmd { return exec.Command(nomad, "agent", "-config", config) }); err != nil {
		return err
	}
	for i := range 2 {
		n := &node{name: fmt.Sprintf("node%d", i), dir: w.path(fmt.Sprintf("node%d", i)), address: nodeAddress(i)}
		n.groups = "freshet-" + filepath.Base(w.dir) + "-" + n.name
		config := w.path("conf", n.name+".hcl")
		text := nodeConfig(n, w.bin, os.Getenv("FRESHET_RUNSC"), w.path("blobs"))
		err := errors.Join(
			os.MkdirAll(filepath.Join(n.dir, "plugins"), 0o755),
			os.Symlink(filepath.Join(w.bin, "freshet-driver"), filepath.Join(n.dir, "plugins", "freshet-driver")),
			os.WriteFile(config, []byte(text), 0o600))
		if err != nil {
			return err
		}
		n.kept = &kept{name: n.name, log: w.path("logs", n.name+".log")}
		if n.place, err = w.machine(n.name, n.address); err != nil {
			return err
		}
		n.command = func() *exec.Cmd {
			if err := n.forget(); err != nil {
				fmt.Fprintln(os.Stderr, "boot", n.name+":", err)
			}
			return n.boot(service{nomad, []string{"agent", "-config", config}})
		}
		if err := n.keep(); err != nil {
			return err
		}
		w.nodes = append(w.nodes, n)
	}
	return nil
}

// startServices starts what is freshet's own.
func (w *world) startServices() error {
	for i := range 2 {
		for _, service := range []struct {
			kind, address string
			port          int
			into          *[]*kept
			args          []string
		}{
			{"gateway", gatewayAddress(i), 8600, &w.gateways, []string{
				"--blobs", "file://" + w.path("blobs"), "--replicas", fmt.Sprint(replicas), "--auth", "off",
			}},
			{"autoscaler", autoscalerAddress(i), 8601, &w.autoscalers, nil},
		} {
			args := append([]string{
				service.kind, "--listen", fmt.Sprintf("%s:%d", service.address, service.port), "--nats", natsURL(), "--nomad", "http://" + bridgeAddress + ":4646",
			}, service.args...)
			k, err := w.run(fmt.Sprintf("%s%d", service.kind, i), service.address, func() *exec.Cmd {
				cmd := exec.Command(filepath.Join(w.bin, "freshet"), args...)
				cmd.Env = append(os.Environ(), "FRESHET_NATS_USER="+service.kind, "FRESHET_NATS_PASSWORD="+password)
				return cmd
			})
			if err != nil {
				return err
			}
			*service.into = append(*service.into, k)
		}
	}
	return nil
}

// connect connects the tests' own eyes, and waits until all components are there.
func (w *world) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	config := api.DefaultConfig()
	config.Address = "http://" + bridgeAddress + ":4646"
	var err error
	if w.nomad, err = api.NewClient(config); err != nil {
		return err
	}
	w.nc, err = nats.Connect(natsURL(), nats.UserInfo(watcher, password), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(rest))
	if err != nil {
		return err
	}
	if w.js, err = jetstream.New(w.nc); err != nil {
		return err
	}
	return await(ctx, "all components are there", w.healthy)
}

// healthy says what is not there yet.
func (w *world) healthy(ctx context.Context) error {
	for i := range w.nats {
		if err := w.natsHealthy(ctx, i); err != nil {
			return err
		}
	}
	for i := range w.gateways {
		if _, err := get(ctx, gateway(i)+"/readyz"); err != nil {
			return err
		}
		if _, err := get(ctx, "http://"+autoscalerAddress(i)+":8601/healthz"); err != nil {
			return err
		}
	}
	list, _, err := w.nomad.Nodes().List((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	ready := 0
	for _, n := range list {
		if n.Status == "ready" && n.Drivers["freshet"] != nil && n.Drivers["freshet"].Healthy {
			ready++
		}
	}
	if ready != len(w.nodes) {
		return fmt.Errorf("%d nodes offer the driver", ready)
	}
	return nil
}

// natsHealthy says that a NATS server has caught up with the others.
func (w *world) natsHealthy(ctx context.Context, i int) error {
	_, err := get(ctx, "http://"+natsAddress(i)+":8222/healthz")
	return err
}

// await tries until there is no error, or the context ends.
func await(ctx context.Context, what string, try func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := try(once)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("never: %s: %w", what, err)
		}
	}
}

func get(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", address, response.Status, bytes.TrimSpace(data))
	}
	return data, err
}

// stop ends everything, the ways in first.
func (w *world) stop() error {
	for _, list := range [][]*kept{w.gateways, w.autoscalers} {
		for _, k := range list {
			k.stop(syscall.SIGTERM)
		}
	}
	var errs []error
	for _, n := range w.nodes {
		n.stop(syscall.SIGKILL)
		errs = append(errs, n.forget())
	}
	if w.nc != nil {
		w.nc.Close()
	}
	for _, k := range append(w.nats, w.server) {
		if k != nil {
			k.stop(syscall.SIGKILL)
		}
	}
	for _, n := range w.places {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// tellLogs writes the ends of all logs, for whoever reads a failed run.
func (w *world) tellLogs(to io.Writer) {
	for _, file := range append(glob(w.path("logs", "*.log")), glob(w.path("node*", "driver", "tasks", "*", "worker.log"))...) {
		data, _ := os.ReadFile(file)
		fmt.Fprintf(to, "--- %s\n%s\n", file, data[max(0, len(data)-1500):])
	}
}
