package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The floors' processes: each part runs apart from its client, as in the system.
const (
	floorHTTP = "floor-http"
	floorNATS = "floor-nats"
	floorPipe = "floor-pipe"
	// floorCluster is NATS with a setting of what it survives.
	floorCluster = "floor-cluster"
)

func runFloor(ctx context.Context, name string, args []string) error {
	switch {
	case name == floorHTTP:
		return serveHTTP(ctx)
	case name == floorNATS && len(args) == 1:
		return serveNATS(ctx, args[0])
	case name == floorCluster && len(args) == 3:
		return serveCluster(ctx, args[0], args[1], args[2])
	case name == floorPipe && len(args) == 1:
		return servePipe(args[0])
	}
	return fmt.Errorf("%s: bench takes no arguments", name)
}

// floors are the running parts.
type floors struct {
	self     string
	children []*exec.Cmd
	http     string
	nats     *natsFloor
	pipe     *pipeFloor
}

func startFloors(ctx context.Context, s *system) (*floors, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	f := &floors{self: self}
	if f.http, err = f.child(floorHTTP); err != nil {
		return nil, err
	}
	url, err := f.child(floorNATS, filepath.Join(s.work, "floor-nats"))
	if err != nil {
		return nil, errors.Join(err, f.stop())
	}
	if f.nats, err = openNATS(ctx, url); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	if err := buildGuest(ctx, "./driver/sandbox/testdata/guest", filepath.Join(s.work, "rootfs")); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	if f.pipe, err = openPipe(self, s.work); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	return f, nil
}

// child starts a part and reads its address.
func (f *floors) child(args ...string) (string, error) {
	cmd := exec.Command(f.self, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	f.children = append(f.children, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	return strings.TrimSpace(line), nil
}

func (f *floors) stop() error {
	if f.nats != nil {
		f.nats.close()
	}
	var err error
	if f.pipe != nil {
		err = f.pipe.close()
	}
	for _, cmd := range f.children {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}
	return err
}

// inParallel shares n calls among some callers and returns how many a second they made.
func inParallel(callers, n int, call func(caller int) error) (float64, error) {
	var group sync.WaitGroup
	failed := make([]error, callers)
	began := time.Now()
	for i := range callers {
		group.Go(func() {
			for range n / callers {
				if failed[i] = call(i); failed[i] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return float64(n/callers*callers) / time.Since(began).Seconds(), errors.Join(failed...)
}

// buildGuest builds a program as the only file of a root.
func buildGuest(ctx context.Context, pkg, rootfs string) error {
	for _, dir := range []string{"proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
			return err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(rootfs, "guest"), pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}
