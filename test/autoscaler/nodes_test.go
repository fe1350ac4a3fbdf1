package autoscaler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
)

// nodeClass and nodeDevices are what the pool's nodes have.
const (
	nodeClass   = "gpu"
	nodeDevices = 2
)

// pool is what a cloud is to nomad-autoscaler: it adds nodes to the cluster, and takes away those on which nothing runs.
type pool struct {
	// changed is told whenever nodes come or go; with the lock.
	changed func([]*node)

	mu    sync.Mutex
	nodes []*node
	made  int
	most  int
}

// ServeHTTP tells the number of nodes and takes another one.
func (p *pool) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var size struct {
		Nodes int `json:"nodes"`
	}
	if r.Method == http.MethodPost {
		err := json.NewDecoder(r.Body).Decode(&size)
		if err == nil {
			err = p.resizeLocked(size.Nodes)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	size.Nodes = len(p.nodes)
	_ = json.NewEncoder(w).Encode(size) // a client that left does not care
}

func (p *pool) resizeLocked(want int) error {
	for len(p.nodes) < want {
		p.made++
		n, err := startNode(fmt.Sprintf("pool-%d", p.made), nodeSettings{class: nodeClass, devices: nodeDevices})
		if err != nil {
			return err
		}
		p.nodes = append(p.nodes, n)
		p.most = max(p.most, len(p.nodes))
	}
	for i := len(p.nodes) - 1; i >= 0 && len(p.nodes) > want; i-- {
		empty, err := p.nodes[i].empty()
		if err != nil {
			return err
		}
		if !empty {
			continue
		}
		if err := p.nodes[i].stop(); err != nil {
			return err
		}
		p.nodes = append(p.nodes[:i], p.nodes[i+1:]...)
	}
	p.changed(p.nodes)
	return nil
}

// size is how many nodes there are, and were at most.
func (p *pool) size() (now, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.nodes), p.most
}

// close takes away what is left.
func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, n := range p.nodes {
		err = errors.Join(err, n.stop())
	}
	p.nodes = nil
	return err
}

// empty tells that nothing runs on the node, and has nothing placed there from then on.
func (n *node) empty() (bool, error) {
	stub, err := n.find()
	if err != nil || stub == nil {
		return stub == nil, err
	}
	if _, err := shared.nomad.Nodes().ToggleEligibility(stub.ID, false, nil); err != nil {
		return false, err
	}
	allocs, _, err := shared.nomad.Nodes().Allocations(stub.ID, nil)
	if err != nil {
		return false, err
	}
	for _, alloc := range allocs {
		if !alloc.ClientTerminalStatus() {
			_, err := shared.nomad.Nodes().ToggleEligibility(stub.ID, true, nil)
			return false, err
		}
	}
	return true, nil
}

// recipe is the page that the test follows: the block of it that begins with the words, with what is another's here replaced.
func recipe(t *testing.T, begins string, with ...[2]string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/autoscaling-nodes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), "\n   "+begins)
	block, _, ended := strings.Cut(after, "\n   ```\n")
	if !found || !ended {
		t.Fatalf("the page has no block that begins with %s", begins)
	}
	text, err := replaced(begins+strings.ReplaceAll(block, "\n   ", "\n")+"\n", with)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// policyHere makes a policy of the page one for the test's pool: its target, and times as short as its nodes' starts.
func policyHere(t *testing.T, begins string, with ...[2]string) string {
	t.Helper()
	return recipe(t, begins, append(with,
		[2]string{`target "aws-asg" `, `target "nodepool" `},
		[2]string{`evaluation_interval = "10s"`, `evaluation_interval = "1s"`},
		[2]string{`cooldown            = "2m"`, `cooldown = "8s"`},
	)...)
}

// TestNodesComeAndGo: work for devices that no node has. The real nomad-autoscaler, configured as docs/autoscaling-nodes.md says, adds
// the nodes that it takes and no more; the calls are answered there, and without calls the nodes go.
func TestNodesComeAndGo(t *testing.T) {
	const device = "nomad/file/mock"
	t.Run("plugin", func(t *testing.T) {
		nodesComeAndGo(t, &pool{changed: func([]*node) {}}, recipe(t, `apm "freshet" {`, [2]string{`autoscalers = ".*"`, fmt.Sprintf("autoscalers = %q", shared.state.Autoscaler())}),
			policyHere(t, `scaling "h100_nodes" {`, [2]string{`nodes/gpu/8/h100`, fmt.Sprintf("nodes/%s/%d/%s", nodeClass, nodeDevices, device)}))
	})
	t.Run("prometheus", func(t *testing.T) {
		if os.Getenv("LONG") == "" {
			t.Skip("LONG=1 runs it: it takes a Prometheus, which takes minutes to build")
		}
		address, found := startPrometheus(t)
		nodesComeAndGo(t, &pool{changed: found}, recipe(t, `apm "prometheus" {`, [2]string{`address = ".*"`, fmt.Sprintf("address = %q", address)}),
			policyHere(t, `scaling "gpu_nodes" {`, [2]string{`nvidia/gpu`, device}, [2]string{`/ 8\)`, fmt.Sprintf("/ %d)", nodeDevices)}))
	})
}

func nodesComeAndGo(t *testing.T, p *pool, agent, policy string) {
	t.Helper()
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	startNomadAutoscaler(t, p, agent, policy)
	variant(t, "growing", func(job *api.Job) {
		job.Constraints = append(job.Constraints, api.NewConstraint("${node.class}", "=", nodeClass))
		group := job.TaskGroups[0]
		group.Scaling.Policy["target_inflight"] = 1
		group.Tasks[0].Config["concurrency"] = 1
		group.Tasks[0].Resources.Devices = []*api.RequestedDevice{{Name: "nomad/file/mock", Count: new(uint64(1))}}
	})
	c := client.New(shared.state.Gateway())
	began := time.Now()
	var calls sync.WaitGroup
	for range nodeDevices + 1 { // one more than a node has devices
		calls.Go(func() {
			if got, err := wait(t.Context(), c, "growing", 3*time.Second); err != nil || got.Attempt != 1 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	calls.Wait()
	answered := time.Since(began)
	eventually.True(t, "all nodes are gone", func() bool { now, _ := p.size(); return now == 0 })
	_, most := p.size()
	t.Logf("answered after %s by %d nodes, which were gone after %s", answered, most, time.Since(began))
	if most != 2 {
		t.Errorf("there were %d nodes, want 2", most)
	}
}

// startNomadAutoscaler runs it with freshet's plugin, and the pool as its cloud.
func startNomadAutoscaler(t *testing.T, p *pool, agent, policy string) {
	t.Helper()
	cloud := httptest.NewServer(p)
	t.Cleanup(cloud.Close)
	dir := t.TempDir()
	plugins, policies := filepath.Join(dir, "plugins"), filepath.Join(dir, "policies")
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
plugin_dir = %q
nomad { address = %q }
http { bind_port = %d }
policy { dir = %q }
target "nodepool" {
  driver = "nodepool"
  config = { address = %q }
}
%s`, plugins, shared.state.Nomad(), ports[0], policies, cloud.URL, agent)
	err = errors.Join(os.Mkdir(plugins, 0o700), os.Mkdir(policies, 0o700),
		os.Symlink(filepath.Join(shared.bin, "freshet-apm"), filepath.Join(plugins, "freshet-apm")),
		os.WriteFile(filepath.Join(policies, "nodes.hcl"), []byte(policy), 0o600),
		os.WriteFile(filepath.Join(dir, "agent.hcl"), []byte(config), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(plugins, "nodepool"), "./nodepool").CombinedOutput(); err != nil {
		t.Fatalf("build the target plugin: %v: %s", err, out)
	}
	startProgram(t, exec.Command(pinned(t, "FRESHET_NOMAD_AUTOSCALER"), "agent", "-config", filepath.Join(dir, "agent.hcl")))
}

// pinned is a program that tools/install builds, as a variable names it.
func pinned(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s must name the program that tools/install builds: use `make test` or `make test-long`", variable)
	}
	return path
}

// startProgram runs a program until the test ends; what it printed is told when the test failed.
func startProgram(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", cmd.Path, output.String()[max(0, output.Len()-6000):])
		}
	})
}

// startPrometheus runs one that is configured as the page says, but for how it finds Nomad's agents: it is told.
func startPrometheus(t *testing.T) (string, func([]*node)) {
	t.Helper()
	dir := t.TempDir()
	agents := filepath.Join(dir, "agents.json")
	found := func(nodes []*node) {
		targets := []string{strings.TrimPrefix(shared.state.Nomad(), "http://")}
		for _, n := range nodes {
			targets = append(targets, fmt.Sprintf("127.0.0.1:%d", n.port))
		}
		data, err := json.Marshal([]map[string][]string{{"targets": targets}})
		if err == nil {
			err = errors.Join(os.WriteFile(agents+".new", data, 0o600), os.Rename(agents+".new", agents))
		}
		if err != nil {
			t.Error(err)
		}
	}
	found(nil)
	config := recipe(t, "scrape_configs:",
		[2]string{`scrape_interval: 5s`, `scrape_interval: 1s`},
		[2]string{`targets: \[.*?\]`, fmt.Sprintf("targets: [%q]", strings.TrimPrefix(shared.state.Autoscaler(), "http://"))},
		[2]string{`consul_sd_configs: .*`, fmt.Sprintf("file_sd_configs: [{ files: [%q], refresh_interval: 1s }]", agents)})
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	startProgram(t, exec.Command(pinned(t, "FRESHET_PROMETHEUS"), "--config.file", file, "--web.listen-address", address, "--storage.tsdb.path", filepath.Join(dir, "data")))
	return "http://" + address, found
}
