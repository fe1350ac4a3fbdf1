//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The oldest kernel and Nomad that are known to do.
const (
	kernelMajor, kernelMinor = 5, 6
	nomadMajor, nomadMinor   = 1, 6
)

// version finds the first version in a text.
var version = regexp.MustCompile(`(\d+)\.(\d+)`) // immutable

// atLeast tells whether a text's first version is a given one or newer.
func atLeast(text string, major, minor int) bool {
	found := version.FindStringSubmatch(text)
	if found == nil {
		return false
	}
	a, _ := strconv.Atoi(found[1]) // digits
	b, _ := strconv.Atoi(found[2]) // digits
	return a > major || a == major && b >= minor
}

func kernel(_ context.Context, s Setup) (string, error) {
	release, err := os.ReadFile(filepath.Join(s.Proc, "sys/kernel/osrelease"))
	if err != nil {
		return "", wrongf("mount it: mount -t proc proc "+s.Proc, "%s is not mounted: %v", s.Proc, err)
	}
	if !atLeast(string(release), kernelMajor, kernelMinor) {
		return "", wrongf(fmt.Sprintf("use Linux %d.%d or newer", kernelMajor, kernelMinor), "Linux %s is too old", strings.TrimSpace(string(release)))
	}
	return "Linux " + strings.TrimSpace(string(release)), nil
}

func fileSystems(_ context.Context, s Setup) (string, error) {
	list, err := os.ReadFile(filepath.Join(s.Proc, "filesystems"))
	if err != nil {
		return "", wrongf("mount it: mount -t proc proc "+s.Proc, "%v", err)
	}
	for _, name := range []string{"overlay", "tmpfs"} {
		if !slices.Contains(strings.Fields(string(list)), name) {
			return "", wrongf("load it: modprobe "+name, "the kernel has no %s", name)
		}
	}
	return "overlay, tmpfs", nil
}

func controlGroups(_ context.Context, s Setup) (string, error) {
	wanted := []string{"cpu", "memory", "pids"}
	data, err := os.ReadFile(filepath.Join(s.Cgroup, "cgroup.controllers"))
	if err == nil {
		there := strings.Fields(string(data))
		for _, name := range wanted {
			if !slices.Contains(there, name) {
				return "", wrongf("boot with cgroup_no_v1=all, or let the container have it", "version 2 without the controller %s", name)
			}
		}
		return "version 2", nil
	}
	for _, name := range wanted {
		if _, err := os.Stat(filepath.Join(s.Cgroup, name)); err != nil {
			return "", wrongf("mount control groups: mount -t cgroup2 none "+s.Cgroup, "%s has neither version 2 nor the controller %s of version 1", s.Cgroup, name)
		}
	}
	return "version 1", nil
}

// ask runs a program that says its version.
func ask(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, err
}

func nomadVersion(ctx context.Context, s Setup) (string, error) {
	const mend = "build the pinned one with `make tools`, or name another with --nomad"
	line, err := ask(ctx, s.Nomad, "version")
	if err != nil {
		return "", wrongf(mend, "%s does not run: %v", s.Nomad, err)
	}
	if !strings.HasPrefix(line, "Nomad") {
		return "", wrongf(mend, "%s is no Nomad: it says %q", s.Nomad, line)
	}
	if !atLeast(line, nomadMajor, nomadMinor) {
		return "", wrongf(mend, "%s is older than %d.%d", line, nomadMajor, nomadMinor)
	}
	return line, nil
}

func runscVersion(ctx context.Context, s Setup) (string, error) {
	const mend = "build the pinned one with `make tools`, or name another with --runsc"
	line, err := ask(ctx, s.Runsc, "--version")
	if err != nil {
		return "", wrongf(mend, "%s does not run: %v", s.Runsc, err)
	}
	if !strings.HasPrefix(line, "runsc") {
		return "", wrongf(mend, "%s is no runsc: it says %q", s.Runsc, line)
	}
	return line, nil
}

func stateDirectory(_ context.Context, s Setup) (string, error) {
	dir := s.State
	for { // as much of it as there is
		info, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return "", err
		}
		if !info.IsDir() {
			return "", wrongf("move it away, or name another directory with --state", "%s is a file", dir)
		}
		break
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return "", wrongf("name another with --state, or mount it to be written", "%s cannot be written: %v", dir, err)
	}
	return s.State, nil
}

func disk(_ context.Context, s Setup) (string, error) {
	dir := s.State
	var stat unix.Statfs_t
	err := unix.Statfs(dir, &stat)
	for errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &stat)
	}
	if err != nil {
		return "", fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	free := stat.Bavail * uint64(stat.Bsize) // a size is never negative
	if free < s.MinFree {
		return "", wrongf("make room, or name a directory on another disk with --state", "%.1f GB are free at %s, less than %.1f GB", gigabytes(free), dir, gigabytes(s.MinFree))
	}
	return fmt.Sprintf("%.1f GB free", gigabytes(free)), nil
}

func gigabytes(n uint64) float64 { return float64(n) / 1e9 }

// ports are not taken: a cluster moves on to the next ones, but whoever expects the usual ones finds another's.
func ports(ctx context.Context, s Setup) (string, error) {
	for _, port := range s.Ports {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return "", wrongf(fmt.Sprintf("end what listens there: `ss -ltnp 'sport = :%d'` names it", port), "port %d is taken: %v", port, err)
		}
		if err := listener.Close(); err != nil {
			return "", fmt.Errorf("look at port %d: %w", port, err)
		}
	}
	if len(s.Ports) == 0 {
		return "the cluster has them", nil
	}
	return "free", nil
}

// gpu finds devices whose driver is not loaded.
func gpu(_ context.Context, s Setup) (string, error) {
	devices, err := filepath.Glob(filepath.Join(s.Dev, "nvidia[0-9]*"))
	if err != nil || len(devices) == 0 {
		return "none", err
	}
	if _, err := os.Stat(filepath.Join(s.Proc, "driver/nvidia/version")); err != nil {
		return "", wrongf("install NVIDIA's driver for this kernel, or load it: modprobe nvidia", "%s is there, and its driver is not loaded", devices[0])
	}
	return fmt.Sprintf("%d of NVIDIA", len(devices)), nil
}
