// Package storm tests a whole cluster in which everything dies at random while calls of every way are made: three NATS servers, two
// gateways, two autoscalers, a Nomad server and two nodes, each a machine of its own as far as its network goes, and the nodes also as
// far as their processes and mounts go. `make test` has a short storm, LONG=1 a long one. FRESHET_STORM_SEED repeats one.
package storm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/freshet-dev/freshet/internal/netnstest"
)

// longEnv asks for the long form.
const longEnv = "LONG"

// keepEnv names a folder that the logs are moved to.
const keepEnv = "FRESHET_STORM_LOGS"

// shared is the cluster of all tests.
var shared *world

func TestMain(m *testing.M) {
	if config := os.Getenv(nodeEnv); config != "" {
		os.Exit(runNode(config))
	}
	os.Exit(netnstest.Inside(func() int { return run(m) }))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-storm-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, name := range []string{"FRESHET_BIN", "FRESHET_NOMAD", "FRESHET_RUNSC"} {
		if os.Getenv(name) == "" {
			fmt.Fprintln(os.Stderr, name+" is not set: use `make test`")
			return 1
		}
	}
	shared = &world{dir: dir, bin: os.Getenv("FRESHET_BIN")}
	code := 1
	if err = shared.start(); err == nil {
		code = m.Run()
	}
	if err = errors.Join(err, shared.stop()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code != 0 {
		shared.tellLogs(os.Stderr)
	}
	if keep := os.Getenv(keepEnv); keep != "" {
		_ = os.Rename(filepath.Join(dir, "logs"), keep)
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
