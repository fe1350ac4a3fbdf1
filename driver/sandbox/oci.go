package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/limits"
)

const (
	bundleFile   = "config.json"
	panicFile    = "panic.log"
	filesFolder  = "files"
	pointsFolder = "points"
	rootFolder   = "root"
	hostname     = "freshet"
)

// rootfsAnnotation says where the guest's accounts are, as what stands in for a root is soon gone.
const rootfsAnnotation = "dev.freshet.rootfs"

// newSpec is the OCI spec of the sandbox's only container.
func newSpec(cfg Config, root string) (*specs.Spec, error) {
	process, err := newProcess(cfg)
	if err != nil {
		return nil, err
	}
	network := specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: cfg.NetNS}
	namespaces := []specs.LinuxNamespace{{Type: specs.PIDNamespace}, network, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace}}
	if cfg.Network == NetworkHost {
		namespaces = slices.DeleteFunc(namespaces, func(ns specs.LinuxNamespace) bool { return ns == network })
	}
	name := cfg.Hostname
	if name == "" {
		name = hostname
	}
	return &specs.Spec{
		Version:     specs.Version,
		Process:     process,
		Root:        &specs.Root{Path: root, Readonly: cfg.Overlay == nil},
		Hostname:    name,
		Annotations: map[string]string{rootfsAnnotation: cfg.Rootfs},
		Mounts:      newMounts(cfg),
		Linux:       &specs.Linux{Namespaces: namespaces, RootfsPropagation: "private"},
	}, nil
}

func newProcess(cfg Config) (*specs.Process, error) {
	user, err := resolveUser(cfg.User, accountsIn(cfg.Rootfs))
	if err != nil {
		return nil, err
	}
	rlimits, err := newRlimits(cfg.Ulimits)
	if err != nil {
		return nil, err
	}
	process := &specs.Process{
		Args: cfg.Args, Env: cfg.Env, Cwd: cfg.Cwd, User: user,
		NoNewPrivileges: !cfg.AllowNewPrivileges,
		Capabilities:    capabilitySets(cfg.Capabilities, user),
		Rlimits:         rlimits,
		Terminal:        cfg.Terminal != nil,
	}
	if process.Cwd == "" {
		process.Cwd = "/"
	}
	return process, nil
}

// capabilitySets gives root what there is; anybody else can get it by a setuid program only, where those are allowed.
func capabilitySets(names []string, user specs.User) *specs.LinuxCapabilities {
	sets := &specs.LinuxCapabilities{Bounding: names}
	if user.UID == 0 {
		sets.Effective, sets.Permitted = names, names
	}
	return sets
}

func newRlimits(ulimits []Ulimit) ([]specs.POSIXRlimit, error) {
	list := make([]specs.POSIXRlimit, 0, len(ulimits)+1)
	seen := make(map[string]bool)
	for i, u := range ulimits {
		name := "RLIMIT_" + strings.ToUpper(u.Name)
		if _, known := limits.FromLinuxResourceName[name]; !known || seen[name] {
			return nil, fmt.Errorf(`ulimits[%d]: %q: name a resource limit once, such as "nofile" or "stack"`, i, u.Name)
		}
		if u.Soft > u.Hard {
			return nil, fmt.Errorf("ulimits[%d].soft: %q: it is above the hard limit %d; lower it", i, strconv.FormatUint(u.Soft, 10), u.Hard)
		}
		seen[name] = true
		list = append(list, specs.POSIXRlimit{Type: name, Soft: u.Soft, Hard: u.Hard})
	}
	if !seen["RLIMIT_NOFILE"] {
		list = append(list, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Hard: 1 << 20, Soft: 1 << 20})
	}
	return list, nil
}

func newMounts(cfg Config) []specs.Mount {
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	if cfg.Group != nil {
		mounts = append(mounts, specs.Mount{Destination: groupsPath, Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
	}
	if cfg.Overlay == nil {
		mounts = append(mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"})
	}
	for _, m := range cfg.Mounts {
		mounts = append(mounts, newMount(m))
	}
	for i, f := range cfg.Files {
		mounts = append(mounts, newMount(Mount{Source: filePath(cfg.StateDir, i), Target: f.Target}))
	}
	return mounts
}

func newMount(m Mount) specs.Mount {
	if m.Source == "" {
		options := []string{"nosuid", "nodev", "mode=1777"}
		if m.Size > 0 {
			options = append(options, fmt.Sprintf("size=%d", m.Size))
		}
		return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: options}
	}
	access := "ro"
	if m.Writable {
		access = "rw"
	}
	return specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: []string{"rbind", "rprivate", "nosuid", "nodev", access}}
}

func filePath(stateDir string, number int) string {
	return filepath.Join(stateDir, filesFolder, strconv.Itoa(number))
}

// writeFiles writes the files that are mounted, and removes what an owner left behind that was killed here before.
func writeFiles(cfg Config) error {
	if err := removeBundle(cfg.StateDir); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("make sandbox directory: %w", err)
	}
	if len(cfg.Files) == 0 {
		return nil
	}
	if err := os.Mkdir(filepath.Join(cfg.StateDir, filesFolder), 0o755); err != nil {
		return fmt.Errorf("make sandbox directory: %w", err)
	}
	for i, f := range cfg.Files {
		if err := os.WriteFile(filePath(cfg.StateDir, i), []byte(f.Content), 0o644); err != nil {
			return fmt.Errorf("write %s for the sandbox: %w", f.Target, err)
		}
	}
	return nil
}

// writeBundle writes the spec where sentry and gofer read it.
func writeBundle(stateDir string, spec *specs.Spec) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode sandbox spec: %w", err)
	}
	if err := os.WriteFile(filepath.Join(stateDir, bundleFile), data, 0o600); err != nil {
		return fmt.Errorf("write sandbox spec: %w", err)
	}
	return nil
}

// Discard removes from a state directory what a sandbox left there whose maker died, mounts among it. Doing it again does no harm.
func Discard(stateDir string) error { return removeBundle(stateDir) }

// removeBundle removes what was written for a sandbox, and what a sentry said when it died.
func removeBundle(stateDir string) error {
	err := unix.Unmount(filepath.Join(stateDir, rootFolder), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: it is not mounted
		return fmt.Errorf("unmount the root's stand-in: %w", err)
	}
	for _, name := range []string{bundleFile, panicFile, filesFolder, pointsFolder, rootFolder} {
		if err := os.RemoveAll(filepath.Join(stateDir, name)); err != nil {
			return fmt.Errorf("remove sandbox files: %w", err)
		}
	}
	return nil
}
