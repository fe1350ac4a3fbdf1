// Package consultest runs a real Consul agent for tests of what talks to one.
package consultest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// Start runs an agent, server and client in one, until the test ends, and returns its HTTP address. The program is named by
// FRESHET_CONSUL, as `make test` sets it, else found on the search path.
func Start(tb testing.TB) string {
	tb.Helper()
	program := os.Getenv("FRESHET_CONSUL") //nolint:forbidigo // a test's own setting
	if program == "" {
		var err error
		if program, err = exec.LookPath("consul"); err != nil {
			tb.Fatal("consul is needed: name it by FRESHET_CONSUL (tools/install consul prints it)")
		}
	}
	dir := tb.TempDir()
	ports := freePorts(tb, 5)
	config := filepath.Join(dir, "consul.hcl")
	text := fmt.Sprintf(`
data_dir = %q
bind_addr = "127.0.0.1"
disable_update_check = true
server = true
bootstrap_expect = 1
ports {
  http     = %d
  server   = %d
  serf_lan = %d
  serf_wan = %d
  dns      = %d
  grpc     = -1
  grpc_tls = -1
}
performance {
  raft_multiplier = 1
}
`, append([]any{filepath.Join(dir, "data")}, ports...)...)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	run(tb, exec.Command(program, "agent", "-config-file", config), filepath.Join(dir, "consul.log"))
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	client := Connect(tb, address)
	eventually.True(tb, "consul has a leader and its agent is in the catalog", func() bool {
		nodes, _, err := client.Catalog().Nodes(&api.QueryOptions{RequireConsistent: true})
		return err == nil && len(nodes) == 1
	})
	return address
}

// Connect makes a client of the agent that keeps no connections.
func Connect(tb testing.TB, address string) *api.Client {
	tb.Helper()
	config := api.DefaultNonPooledConfig()
	config.Address = address
	client, err := api.NewClient(config)
	if err != nil {
		tb.Fatal(err)
	}
	return client
}

func run(tb testing.TB, cmd *exec.Cmd, logPath string) {
	tb.Helper()
	log, err := os.Create(logPath)
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill() // an agent of one test keeps nothing
		_ = cmd.Wait()
		_ = log.Close()
		if tb.Failed() {
			text, _ := os.ReadFile(logPath)
			tb.Logf("consul: %s", text[max(0, len(text)-4000):])
		}
	})
}

func freePorts(tb testing.TB, count int) []any {
	tb.Helper()
	ports := make([]any, count)
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		defer func() { _ = listener.Close() }() // held until all are chosen
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports
}
