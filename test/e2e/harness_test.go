// Package e2e tests the whole system as it runs in production: real NATS, Nomad and gVisor, each component its own process.
package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/test/clustertest"
)

// patience bounds every wait for a condition.
const patience = 60 * time.Second

// shared is the cluster of all tests: a start takes seconds.
var shared *clustertest.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = &clustertest.Cluster{Bin: os.Getenv("FRESHET_BIN"), Dir: dir}
	if shared.Bin == "" {
		fmt.Fprintln(os.Stderr, "FRESHET_BIN must name the folder of freshet's programs: use `make test`")
		return 1
	}
	code := 1
	if err := start(); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	if err := shared.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code != 0 {
		shared.TellLogs(os.Stderr)
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// start starts the cluster and deploys the tests' apps.
func start() error {
	if err := shared.Up(); err != nil {
		return err
	}
	for _, app := range []string{"../guests/misbehave", "../../examples/gosearch"} {
		if out, err := shared.Freshet("deploy", app); err != nil {
			return fmt.Errorf("deploy %s: %w: %s", app, err, out)
		}
	}
	return nil
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
	c := client.New(shared.State.Gateway())
	return client.Call[map[string]string, told](ctx, c, "misbehave."+function, map[string]string{"do": do, "with": with})
}

func look(t *testing.T, app, function string) clustertest.View {
	t.Helper()
	return shared.Look(t, app, function)
}

func workers(t *testing.T, app, function string) []queue.Heartbeat {
	t.Helper()
	return shared.Workers(t, app, function)
}
