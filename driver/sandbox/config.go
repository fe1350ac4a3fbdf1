package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	gvisorlog "gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/specutils"
)

// Config describes a sandbox. Where a field is left out, the guest gets the least: no network, no capabilities, a root that it
// cannot write.
type Config struct {
	// ID names it within StateDir: up to 70 letters, digits, '-', '_' and '.'.
	ID string
	// Runsc is the path of the pinned runsc binary.
	Runsc string
	// Platform is how system calls are intercepted: "systrap" (default) or "kvm".
	Platform string
	// StateDir is a directory of this sandbox's own, for gVisor's state files and the OCI bundle.
	StateDir string
	// SharedDir is a directory of the node's, the same for all sandboxes: gVisor keeps an empty network namespace mounted
	// there, so that not each start must make one.
	SharedDir string

	// Rootfs is the guest's root on the host: a directory, or a file with an EROFS image. It is never written to.
	Rootfs string
	// Overlay takes what the guest writes to its root. Without one the root is read-only, and /tmp is the guest's own.
	Overlay *Overlay
	// Mounts are what else the guest sees, in the order in which they are mounted.
	Mounts []Mount
	// Files are written for this guest alone and lie read-only in it, such as /etc/resolv.conf.
	Files []File

	// Args is the command line; Args[0] is a path in the rootfs, or a name to look up in the guest's PATH.
	Args []string
	// Env is the guest's environment, as NAME=value. HOME is added from /etc/passwd where it is missing.
	Env []string
	// Cwd is the working directory, "/" where it is empty. It must exist.
	Cwd string
	// User is who runs Args, in docker's forms: name, uid, name:group, uid:gid. Empty is root.
	User string
	// Capabilities is what the guest's root may do within the sandbox; see Capabilities. Another user has none at first.
	Capabilities []string
	// AllowNewPrivileges lets programs with a setuid bit or file capabilities raise the guest's privileges.
	AllowNewPrivileges bool
	// Ulimits are the guest's resource limits; where "nofile" is not among them it is 1,048,576.
	Ulimits []Ulimit
	// Group makes the guest see itself in a control group of version 2 named by ID, with these values in its files, such as
	// "memory.max": runtimes size themselves by them. What holds it to them is the group that the sandbox is in. Nil: it sees none.
	Group map[string]string
	// Hostname is what the guest is called, "freshet" where it is empty.
	Hostname string
	// Terminal makes the guest's standard streams a terminal of that size: Stdin and Stdout are then its other end.
	Terminal *WindowSize

	// Network is what the guest reaches; NetNS is the path of the namespace that NetworkOwn and NetworkShared are in.
	Network Network
	NetNS   string

	// DebugDir, when set, receives the debug logs of sentry and gofer; they are large and slow.
	DebugDir string
}

// Overlay is where the writes to a root go.
type Overlay struct {
	// Dir is a directory on the host whose file system holds them, in a file that has no name; empty: the guest's memory.
	Dir string
	// Size is how many bytes there may be; 0 is no limit, which with a Dir is the whole of its file system. Beyond it the guest
	// reads ENOSPC.
	Size int64
}

// Mount is a directory or file of the host, or fresh memory, in the guest. Nothing that is mounted later on the host below
// Source is seen, and no device or setuid program in it works.
type Mount struct {
	// Source is on the host. Empty: a tmpfs of Size bytes, writable.
	Source string
	// Target is the place in the guest. It is made where the root has no such place.
	Target string
	// Writable lets the guest write through to Source.
	Writable bool
	// Size bounds a tmpfs; 0 is no limit but the sandbox's memory.
	Size int64
}

// File is a small file that is made for one guest.
type File struct {
	Target  string
	Content string
}

// Ulimit is a resource limit; Name as docker has it, such as "nofile" or "stack".
type Ulimit struct {
	Name       string
	Soft, Hard uint64
}

// WindowSize is a terminal's size in characters.
type WindowSize struct{ Rows, Cols uint16 }

// Network is what a guest reaches. There is a loopback interface in each case.
type Network string

const (
	// NetworkNone is the loopback interface alone.
	NetworkNone Network = ""
	// NetworkOwn is gVisor's own stack on the interfaces of a namespace. It takes the addresses away from the host's kernel, so a
	// namespace serves one sandbox once.
	NetworkOwn Network = "own"
	// NetworkShared is the host kernel's stack in a namespace, which sandboxes can share and use again: Nomad's bridge mode. The
	// guest cannot be frozen with connections open.
	NetworkShared Network = "shared"
	// NetworkHost is the host's own network.
	NetworkHost Network = "host"
)

// validate names what cannot work before anything is made.
func (c *Config) validate() error {
	fail := func(field string, value any, mend string) error {
		return fmt.Errorf("create sandbox: %s: %q: %s", field, fmt.Sprint(value), mend)
	}
	needsNS := c.Network == NetworkOwn || c.Network == NetworkShared
	switch {
	case c.Runsc == "":
		return fail("runsc", c.Runsc, "name the pinned runsc binary")
	case len(c.Args) == 0:
		return fail("args", "", "name the program that the sandbox runs")
	case !filepath.IsAbs(c.Rootfs):
		return fail("rootfs", c.Rootfs, "give an absolute path")
	case c.Cwd != "" && !filepath.IsAbs(c.Cwd):
		return fail("cwd", c.Cwd, "give an absolute path")
	case c.Overlay != nil && c.Overlay.Dir != "" && (!filepath.IsAbs(c.Overlay.Dir) || strings.Contains(c.Overlay.Dir, ",")):
		return fail("overlay.dir", c.Overlay.Dir, "give an absolute path without a comma")
	case c.Overlay != nil && c.Overlay.Size < 0:
		return fail("overlay.size", c.Overlay.Size, "give a number of bytes, or 0 for no limit")
	case !slices.Contains([]Network{NetworkNone, NetworkOwn, NetworkShared, NetworkHost}, c.Network):
		return fail("network", c.Network, `use "own", "shared", "host" or nothing`)
	case needsNS && !filepath.IsAbs(c.NetNS):
		return fail("netns", c.NetNS, fmt.Sprintf("the network %q needs the path of a namespace", c.Network))
	case !needsNS && c.NetNS != "":
		return fail("netns", c.NetNS, fmt.Sprintf("the network %q has no namespace of its own; leave this out", c.Network))
	}
	for i, m := range c.Mounts {
		field := fmt.Sprintf("mounts[%d].", i)
		switch {
		case !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) == "/":
			return fail(field+"target", m.Target, "give an absolute path below /")
		case m.Source != "" && !filepath.IsAbs(m.Source):
			return fail(field+"source", m.Source, "give an absolute path")
		case m.Size < 0 || m.Size > 0 && m.Source != "":
			return fail(field+"size", m.Size, "only a mount without a source has a size, in bytes")
		}
	}
	for i, f := range c.Files {
		if !filepath.IsAbs(f.Target) || filepath.Clean(f.Target) == "/" {
			return fail(fmt.Sprintf("files[%d].target", i), f.Target, "give an absolute path below /")
		}
	}
	return nil
}

// configure sets what gVisor keeps in globals: where its program is and where it logs.
func configure(runsc string, debug bool, log zerolog.Logger) {
	specutils.ExePath = runsc
	gvisorlog.SetTarget(emitter{log})
	if debug {
		gvisorlog.SetLevel(gvisorlog.Debug)
	} else {
		gvisorlog.SetLevel(gvisorlog.Warning)
	}
}

type setting struct{ name, value string }

// newConfig is gVisor's configuration: its defaults, and what a sandbox needs otherwise.
func newConfig(cfg Config) (*config.Config, error) {
	platform := cfg.Platform
	if platform == "" {
		platform = "systrap"
	}
	settings := []setting{
		{"root", cfg.StateDir},
		{"shared-root", cfg.SharedDir},
		{"platform", platform},
		// The pinned runsc is one program built from the module proxy: it has no separate sentry beside it.
		{"sidecar-usage-policy", "LEGACY_DEPRECATED_SLOW_EMBEDDED_FALLBACK"},
		{"network", map[Network]string{NetworkNone: "none", NetworkOwn: "sandbox", NetworkShared: "host", NetworkHost: "host"}[cfg.Network]},
		// The driver puts the whole tree of processes into the task's cgroup.
		{"ignore-cgroups", "true"},
		// A check of /proc/sys settings, each start: the node's fingerprint is the place for that.
		{"host-settings", "ignore"},
		// The root is shared by all workers of an image and never written.
		{"overlay2", overlaySetting(cfg.Overlay)},
		// What a sentry says before it dies of its own fault.
		{"panic-log", filepath.Join(cfg.StateDir, panicFile)},
		{"allow-suid", strconv.FormatBool(cfg.AllowNewPrivileges)},
		{"net-raw", strconv.FormatBool(slices.Contains(cfg.Capabilities, capNetRaw))},
	}
	if cfg.Group != nil {
		settings = append(settings, setting{"in-sandbox-cgroup", "v2"})
	}
	if cfg.DebugDir != "" {
		settings = append(settings, setting{"debug", "true"}, setting{"debug-log", cfg.DebugDir + "/"})
	}
	return apply(settings)
}

func apply(settings []setting) (*config.Config, error) {
	flags := flag.NewFlagSet("runsc", flag.ContinueOnError)
	config.RegisterFlags(flags)
	for _, s := range settings {
		if err := flags.Set(s.name, s.value); err != nil {
			return nil, fmt.Errorf("set gVisor's %s to %q: %w", s.name, s.value, err)
		}
	}
	conf, err := config.NewFromFlags(flags)
	if err != nil {
		return nil, fmt.Errorf("configure gVisor: %w", err)
	}
	return conf, nil
}

func overlaySetting(overlay *Overlay) string {
	if overlay == nil {
		return "none"
	}
	medium := "memory"
	if overlay.Dir != "" {
		medium = "dir=" + overlay.Dir
	}
	if overlay.Size == 0 {
		return "root:" + medium
	}
	return fmt.Sprintf("root:%s,size=%d", medium, overlay.Size)
}

// emitter gives gVisor's log to zerolog, for debugging only: what fails comes back as an error, and its warnings are mostly
// about how it was built.
type emitter struct{ log zerolog.Logger }

// Emit implements gVisor's log.Emitter.
func (e emitter) Emit(_ int, level gvisorlog.Level, _ time.Time, format string, v ...any) {
	e.log.Debug().Str("source", "gvisor").Stringer("gvisor_level", level).Msg(fmt.Sprintf(format, v...))
}
