// Package nomadtest runs a real Nomad server for tests of what talks to one.
package nomadtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/local"
)

// Start runs a server without a client node until the test ends: jobs can be registered and scaled, and nothing is placed.
// The program is named by FRESHET_NOMAD, as `make test` sets it, else found on the search path.
func Start(tb testing.TB) *api.Client {
	tb.Helper()
	return StartWith(tb, "")
}

// StartWith runs an agent with more configuration, such as that of a client node.
func StartWith(tb testing.TB, more string) *api.Client {
	tb.Helper()
	program := os.Getenv("FRESHET_NOMAD") //nolint:forbidigo // a test's own setting
	if program == "" {
		var err error
		if program, err = exec.LookPath("nomad"); err != nil {
			tb.Fatal("nomad is needed: name it by FRESHET_NOMAD (make tools prints it)")
		}
	}
	dir := tb.TempDir()
	ports := freePorts(tb, 3)
	config := filepath.Join(dir, "nomad.hcl")
	text := fmt.Sprintf(`
data_dir = %q
bind_addr = "127.0.0.1"
disable_update_check = true
ports {
  http = %d
  rpc  = %d
  serf = %d
}
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}
server {
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1
}
%s
`, filepath.Join(dir, "data"), ports[0], ports[1], ports[2], more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	run(tb, exec.Command(program, "agent", "-config", config), filepath.Join(dir, "nomad.log"))
	return connect(tb, fmt.Sprintf("http://127.0.0.1:%d", ports[0]))
}

func run(tb testing.TB, cmd *exec.Cmd, logPath string) {
	tb.Helper()
	log, err := os.Create(logPath)
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill() // a server of one test keeps nothing
		_ = cmd.Wait()
		_ = log.Close()
		if err := local.UnmountUnder(filepath.Dir(logPath)); err != nil { // the secrets of what ran
			tb.Error(err)
		}
		if tb.Failed() {
			text, _ := os.ReadFile(logPath)
			tb.Logf("nomad: %s", text[max(0, len(text)-4000):])
		}
	})
}

func freePorts(tb testing.TB, count int) []int {
	tb.Helper()
	ports := make([]int, count)
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

func connect(tb testing.TB, address string) *api.Client {
	tb.Helper()
	config := api.DefaultConfig()
	config.Address = address
	client, err := api.NewClient(config)
	if err != nil {
		tb.Fatal(err)
	}
	eventually.True(tb, "nomad has a leader", func() bool {
		leader, err := client.Status().Leader()
		if err != nil || leader == "" {
			return false
		}
		_, _, err = client.Jobs().List(nil)
		return err == nil
	})
	return client
}
