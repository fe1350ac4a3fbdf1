package spec

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

func (c *checker) container(cfg Config) {
	c.duration("image_pull_timeout", cfg.ImagePullTimeout, 0, MaxTimeout)
	if strings.HasPrefix(cfg.Image, DockerfilePrefix) {
		c.fail("image", cfg.Image, "build it first, as `freshet deploy` and `freshet image build` do, and name the image")
	}
	if cfg.WorkDir != "" {
		c.absolute("work_dir", cfg.WorkDir)
	}
	c.process(cfg)
	c.writable(cfg.Writable)
	c.mounts(cfg)
	c.reachable(cfg.Container)
}

// process checks what the process is and may.
func (c *checker) process(cfg Config) {
	if cfg.Handler != nil && cfg.Handler.Type == HandlerGo {
		if cfg.Command != "" || len(cfg.Entrypoint) > 0 {
			c.fail("command", strings.Join(append(slices.Clone(cfg.Entrypoint), cfg.Command), " "), "a go handler runs its code: give it args instead")
		}
	}
	if cfg.Handler != nil && cfg.TTY {
		c.fail("tty", cfg.TTY, "remove it: a handler's standard streams carry its calls")
	}
	for _, list := range []struct {
		field string
		names []string
	}{{"cap_add", cfg.CapAdd}, {"cap_drop", cfg.CapDrop}} {
		for i, name := range list.names {
			if !validCapability(name) {
				c.fail(fmt.Sprintf("%s[%d]", list.field, i), name, "use a capability's name, such as \"net_bind_service\", or \"all\"")
			}
		}
	}
	if cfg.PidsLimit < 0 {
		c.fail("pids_limit", cfg.PidsLimit, "use 1 or more, or remove it for the node's default")
	}
	if cfg.ShmSize < 0 {
		c.fail("shm_size", cfg.ShmSize, "use a number of bytes, 1 or more")
	}
	if cfg.MemoryHardLimit < 0 {
		c.fail("memory_hard_limit", cfg.MemoryHardLimit, "use MB, 1 or more")
	}
	for _, limits := range cfg.Ulimit {
		for _, name := range sortedNames(limits) {
			if _, _, err := ParseUlimit(limits[name]); err != nil {
				c.fail("ulimit."+name, limits[name], "use a number, or soft:hard")
			}
		}
	}
}

// validCapability takes the names of capabilities(7) with and without "CAP_", in any case.
func validCapability(name string) bool {
	return name != "" && strings.Trim(strings.ToUpper(name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// ParseUlimit reads "1024" or "1024:2048" as soft and hard limit; -1 is unlimited.
func ParseUlimit(text string) (soft, hard uint64, err error) {
	first, second, both := strings.Cut(text, ":")
	if !both {
		second = first
	}
	for _, part := range []struct {
		text string
		into *uint64
	}{{first, &soft}, {second, &hard}} {
		number, err := strconv.ParseInt(part.text, 10, 64)
		if err != nil || number < -1 {
			return 0, 0, fmt.Errorf("read limit %q: use a number, or soft:hard", text)
		}
		*part.into = uint64(number) // -1 is RLIM_INFINITY (getrlimit(2))
	}
	if soft > hard {
		return 0, 0, fmt.Errorf("read limit %q: the soft limit is above the hard one", text)
	}
	return soft, hard, nil
}

func (c *checker) writable(w *Writable) {
	if w == nil {
		return
	}
	if w.Medium != "" && w.Medium != MediumMemory && w.Medium != MediumDisk {
		c.fail("writable.medium", w.Medium, "use %q or %q", MediumMemory, MediumDisk)
	}
	if w.SizeMB < 0 {
		c.fail("writable.size", w.SizeMB, "use MB, 1 or more")
	}
}

func (c *checker) mounts(cfg Config) {
	for i, m := range cfg.Mounts {
		c.mount(fmt.Sprintf("mount[%d]", i), m, cfg.Snapshot.Enabled)
	}
	for i, text := range cfg.Volumes {
		field := fmt.Sprintf("volumes[%d]", i)
		m, err := ParseVolume(text)
		if err != nil {
			c.fail(field, text, "use \"source:/target\" or \"source:/target:ro\"")
			continue
		}
		c.mount(field, m, cfg.Snapshot.Enabled)
	}
}

func (c *checker) mount(field string, m Mount, frozen bool) {
	c.absolute(field+".target", m.Target)
	switch m.Type {
	case "", MountBind:
		c.source(field+".source", m.Source)
		if !m.Readonly && frozen {
			c.fail(field+".readonly", m.Readonly, "a snapshot cannot depend on what others may write: set readonly = true, or snapshot.enabled = false")
		}
		if len(m.TmpfsOptions) > 0 {
			c.fail(field+".tmpfs_options", "", "remove it: only a tmpfs has them")
		}
	case MountTmpfs:
		if m.Source != "" {
			c.fail(field+".source", m.Source, "remove it: a tmpfs begins empty")
		}
		if len(m.TmpfsOptions) > 1 {
			c.fail(field+".tmpfs_options", fmt.Sprintf("%d blocks", len(m.TmpfsOptions)), "write the block once")
		}
		for _, o := range m.TmpfsOptions {
			if o.Size < 0 || o.Mode < 0 || o.Mode > 0o7777 {
				c.fail(field+".tmpfs_options", fmt.Sprintf("size %d, mode %o", o.Size, o.Mode), "use a size in bytes and a mode up to 0o7777")
			}
		}
	default:
		c.fail(field+".type", m.Type, "use %q or %q; named volumes are Nomad's: a volume block in the group and a volume_mount in the task", MountBind, MountTmpfs)
	}
}

// source takes absolute paths of the node and relative ones that stay within the task's directory.
func (c *checker) source(field, value string) {
	if path.IsAbs(value) {
		c.absolute(field, value)
		return
	}
	if value == "" || path.Clean(value) != value || value == ".." || strings.HasPrefix(value, "../") {
		c.fail(field, value, "use an absolute path, or one within the task's directory such as \"local/conf\"")
	}
}

// ParseVolume reads a mount in docker's short form.
func ParseVolume(text string) (Mount, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return Mount{}, fmt.Errorf("read volume %q: use \"source:/target\" or \"source:/target:ro\"", text)
	}
	m := Mount{Type: MountBind, Source: parts[0], Target: parts[1]}
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "ro":
				m.Readonly = true
			case "rw", "z", "Z": // SELinux labels mean nothing to a sandbox
			default:
				return Mount{}, fmt.Errorf("read volume %q: unknown option %q", text, option)
			}
		}
	}
	return m, nil
}

// NetworkModes are what network_mode may be.
const (
	NetworkNone   = "none"
	NetworkBridge = "bridge"
	NetworkHost   = "host"
)

// reachable checks what the task reaches and how it is reached.
func (c *checker) reachable(t Container) {
	if t.NetworkMode != "" && !slices.Contains([]string{NetworkNone, NetworkBridge, NetworkHost}, t.NetworkMode) {
		c.fail("network_mode", t.NetworkMode, "use %q, %q or %q, or a network block in the group", NetworkNone, NetworkBridge, NetworkHost)
	}
	for i, server := range t.DNSServers {
		if _, err := netip.ParseAddr(server); err != nil {
			c.fail(fmt.Sprintf("dns_servers[%d]", i), server, "use an IP address")
		}
	}
	for i, line := range t.ExtraHosts {
		name, address, ok := strings.Cut(line, ":")
		if _, err := netip.ParseAddr(address); !ok || name == "" || err != nil {
			c.fail(fmt.Sprintf("extra_hosts[%d]", i), line, "use \"name:address\"")
		}
	}
}

func sortedNames[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
