// Package system tests the jobspecs of a cluster's own parts: NATS, gateway and autoscaler as jobs of a real Nomad.
package system

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/jobspecs"
)

const node = `
client {
  enabled           = true
  network_interface = "lo"
  options {
    "driver.allowlist"     = "raw_exec"
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,bridge,cni"
  }
}
plugin "raw_exec" {
  config {
    enabled = true
  }
}
`

// cluster is a Nomad node with nothing on it.
type cluster struct {
	*testing.T
	nomad *api.Client
}

// run has Nomad's own tool validate, plan and run a jobspec, which ends with the test.
func (c cluster) run(name string, variables map[string]string) {
	c.Helper()
	args := []string{}
	for variable, value := range variables {
		args = append(args, "-var", variable+"="+value)
	}
	args = append(args, "../../jobspecs/system/"+name+".nomad.hcl")
	c.Cleanup(func() {
		if _, _, err := c.nomad.Jobs().Deregister(name, true, nil); err != nil {
			c.Error(err)
		}
		eventually.True(c, name+" has ended", func() bool {
			allocs, _, err := c.nomad.Jobs().Allocations(name, true, nil)
			for _, alloc := range allocs {
				if alloc.ClientStatus == api.AllocClientStatusRunning {
					return false
				}
			}
			return err == nil
		})
	})
	for _, verb := range []string{"validate", "plan", "run"} {
		cmd := exec.Command(os.Getenv("FRESHET_NOMAD"), append([]string{"job", verb}, args...)...)
		cmd.Env = append(os.Environ(), "NOMAD_ADDR="+c.nomad.Address())
		out, err := cmd.CombinedOutput()
		if planned := verb == "plan" && cmd.ProcessState.ExitCode() == 1; err != nil && !planned { // 1: there is something to do
			c.Fatalf("nomad job %s %s: %v: %s", verb, name, err, out)
		}
	}
}

// secret puts what a job alone may read.
func (c cluster) secret(job string, items map[string]string) {
	c.Helper()
	variable := api.NewVariable("nomad/jobs/" + job)
	variable.Items = items
	if _, _, err := c.nomad.Variables().Create(variable, nil); err != nil {
		c.Fatal(err)
	}
}

// freePort is one that nobody listens on just now.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// buildNATS builds the server of the version that the tests' own is of.
func buildNATS(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "nats-server")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// TestSystemJobsAreACluster: the three jobs, with passwords from Nomad's variables, are a gateway that takes calls and an autoscaler that acts.
func TestSystemJobsAreACluster(t *testing.T) {
	c := cluster{t, nomadtest.StartWith(t, node)}
	c.secret("nats", map[string]string{"gateway": "g", "autoscaler": "a", "worker": "w"})
	c.secret("gateway", map[string]string{"nats": "g", "root_token": "root-token-of-the-test", "callback_secret": "s"})
	c.secret("autoscaler", map[string]string{"nats": "a"})
	eventually.True(t, "the node is ready", func() bool {
		nodes, _, err := c.nomad.Nodes().List(nil)
		return err == nil && len(nodes) == 1 && nodes[0].Status == "ready"
	})
	nats, gateway, autoscaler := freePort(t), freePort(t), freePort(t)
	c.run("nats", map[string]string{"server": buildNATS(t), "data": t.TempDir(), "port": nats, "address": "127.0.0.1"})
	freshet, address := filepath.Join(os.Getenv("FRESHET_BIN"), "freshet"), "nats://127.0.0.1:"+nats
	c.run("autoscaler", map[string]string{"freshet": freshet, "nats": address, "nomad": c.nomad.Address(), "port": autoscaler})
	c.run("gateway", map[string]string{
		"freshet": freshet, "nats": address, "nomad": c.nomad.Address(), "port": gateway, "address": "127.0.0.1", "blobs": "file://" + t.TempDir(),
	})
	eventually.True(t, "the gateway takes calls", func() bool { return get(t, "http://127.0.0.1:"+gateway+"/readyz", "") == http.StatusOK })
	eventually.True(t, "the autoscaler runs", func() bool { return get(t, "http://127.0.0.1:"+autoscaler+"/healthz", "") == http.StatusOK })
	functions := "http://127.0.0.1:" + gateway + "/v1/functions"
	if status := get(t, functions, ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
	if status := get(t, functions, "root-token-of-the-test"); status != http.StatusOK {
		t.Errorf("with the root token: %d", status)
	}
}

// get is the status that an address answers with; 0 when nobody does.
func get(t *testing.T, address, token string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

// TestNATSJobHasEveryRole: each user of the jobspec has the subjects of its role, and no others.
func TestNATSJobHasEveryRole(t *testing.T) {
	text, err := jobspecs.Template("system/nats")
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []queue.Role{queue.RoleGateway, queue.RoleAutoscaler, queue.RoleWorker} {
		_, user, _ := strings.Cut(string(text), `user: "`+string(role)+`"`)
		_, user, _ = strings.Cut(user, "publish: [")
		publish, rest, _ := strings.Cut(user, "]")
		_, rest, _ = strings.Cut(rest, "subscribe: [")
		subscribe, _, _ := strings.Cut(rest, "]")
		allowed := role.Permissions()
		for list, subjects := range map[string][]string{publish: allowed.Publish, subscribe: allowed.Subscribe} {
			if listed := strings.Fields(list); strings.Join(listed, " ") != `"`+strings.Join(subjects, `", "`)+`",` {
				t.Errorf("%s has %s, its role %q", role, listed, subjects)
			}
		}
	}
	if !strings.Contains(string(text), "max_payload: "+strconv.Itoa(queue.MaxMessage)) {
		t.Errorf("its largest message is not %d", queue.MaxMessage)
	}
}
