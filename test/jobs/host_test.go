// Package jobs tests that jobs written for Nomad's docker driver run with only the driver's name changed: in a real Nomad agent, on
// images made of Debian packages, through the commands that people type. The jobs are the files beside it.
package jobs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/netnstest"
)

// dirEnv names the tests' directory to the process that runs in a host of its own: a network namespace, which holds what Nomad and
// the driver make, and a mount namespace.
const dirEnv = "FRESHET_TEST_JOBS_DIR"

const (
	// hostAddress is the node's, by which everybody reaches its tasks; outsideAddress is another machine's.
	hostAddress    = "203.0.113.1"
	outsideAddress = "203.0.113.2"
)

func TestMain(m *testing.M) {
	code, err := runInHost(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// runInHost runs the tests in namespaces of their own, and removes what they left, however they ended.
func runInHost(m *testing.M) (code int, err error) {
	dir := os.Getenv(dirEnv)
	if dir == "" {
		if dir, err = os.MkdirTemp("", "freshet-jobs-"); err != nil {
			return 1, err
		}
		defer func() { err = errors.Join(err, clearGroup(driverGroup), clearGroup(nomadGroup), os.RemoveAll(dir)) }()
		if err := os.Setenv(dirEnv, dir); err != nil {
			return 1, err
		}
	}
	return netnstest.Inside(func() int {
		code, err := run(m, dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}), nil
}

// run makes the host, the images and the agent, and runs the tests.
func run(m *testing.M, dir string) (code int, err error) {
	runtime.LockOSThread() // the agent ends with it
	end, err := makeHost()
	if err != nil {
		return 1, fmt.Errorf("make a host: %w", err)
	}
	defer func() { err = errors.Join(err, end()) }()
	registry, err := startRegistry()
	if err != nil {
		return 1, fmt.Errorf("start a registry: %w", err)
	}
	defer registry.Close()
	if err := makeImages(dir); err != nil {
		return 1, fmt.Errorf("make images: %w", err)
	}
	node = &agent{dir: dir}
	defer func() {
		err = errors.Join(err, node.stop())
		if code != 0 || err != nil {
			node.tellLogs()
		}
	}()
	if err := node.start(); err != nil {
		return 1, fmt.Errorf("start a nomad agent: %w", err)
	}
	return m.Run(), nil
}

// makeHost joins the host to another machine. What programs keep in /run and in CNI's directory is the host's own too.
func makeHost() (end func() error, err error) {
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return nil, fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if outside, err = netnstest.Outside(hostAddress+"/24", outsideAddress+"/24"); err != nil {
		return nil, err
	}
	return outside.Close, nil
}

// outside is another machine's network.
var outside *netnstest.Namespace

// setting is what `make test` finds out for the tests.
func setting(name string) (string, error) {
	value := os.Getenv(name)
	if value == "" {
		return "", fmt.Errorf("%s is not set: use `make test`", name)
	}
	return filepath.Abs(value)
}
