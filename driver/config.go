package driver

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/network"
)

// Defaults of the plugin's configuration.
const (
	// DefaultCgroupParent holds the control groups of all tasks.
	DefaultCgroupParent = "freshet"
	// DefaultPlatform works on every node; "kvm" needs its device.
	DefaultPlatform = "systrap"
	// DefaultOverheadMB is what a sandbox itself may take beside its task's memory: about 45 MB were measured at rest.
	DefaultOverheadMB = 64
	// DefaultPidsLimit bounds the processes in a sandbox that names no limit of its own.
	DefaultPidsLimit = 4096
	// DefaultAheadIdle is how long nothing of a function must start for its sandboxes made ahead to go.
	DefaultAheadIdle = 30 * time.Minute
	// DefaultOrphanGrace is how long a task that no agent asks for runs on.
	DefaultOrphanGrace = 5 * time.Minute
)

// Config is the plugin's block in the agent's configuration.
type Config struct {
	// DataDir is where the driver keeps tasks, root file systems and snapshots. Needed.
	DataDir string `codec:"data_dir"`
	// Runsc and Worker are the paths of the pinned runsc and of freshet-worker. Needed. Init is that of freshet-init, by default
	// beside Worker, and so is Builder, that of freshet-builder, which only builds need.
	Runsc   string `codec:"runsc"`
	Worker  string `codec:"worker"`
	Init    string `codec:"init"`
	Builder string `codec:"builder"`
	// Platform is how gVisor intercepts system calls, "systrap" or "kvm". Default "systrap".
	Platform string `codec:"platform"`
	// Blobs is the URL of the cluster's blob store. Needed for code named by digest.
	Blobs string `codec:"blobs"`
	// Volumes is the directory that holds the cluster's volumes, the same on each node that has it: a disk of this node, or a file
	// system that nodes share. Without it tasks with volumes are not placed here.
	Volumes string `codec:"volumes"`
	// AllowHostPaths lets jobs name programs, images and mounts by their path on the node. Default false.
	AllowHostPaths bool `codec:"allow_host_paths"`
	// AllowHostNetwork lets jobs use the node's own network. Default false.
	AllowHostNetwork bool `codec:"allow_host_network"`
	// CgroupParent is the control group that holds those of all tasks. Default DefaultCgroupParent.
	CgroupParent string `codec:"cgroup_parent"`
	// CgroupRoot is where control groups with their controllers are mounted. Default cgroup.DefaultRoot; an agent that runs in a
	// container may see the node's elsewhere.
	CgroupRoot string `codec:"cgroup_root"`
	// OverheadMB is what a sandbox itself may take beside its task's memory. Default DefaultOverheadMB.
	OverheadMB int64 `codec:"overhead_mb"`
	// PidsLimit bounds the processes in a sandbox that names no limit. Default DefaultPidsLimit.
	PidsLimit int64 `codec:"pids_limit"`
	// OrphanGrace is how long a task that no agent asks for runs on before it is drained: its agent lost its state. Default
	// DefaultOrphanGrace.
	OrphanGrace string `codec:"orphan_grace"`
	// NATS is how the workers reach the queue. Needed for functions.
	NATS NATSConfig `codec:"nats"`
	// Nomad is how secrets are read. Needed for tasks that have some.
	Nomad NomadConfig `codec:"nomad"`
	// Gateway is how functions call others. Without it they cannot.
	Gateway GatewayConfig `codec:"gateway"`
	// Snapshots bounds the node's snapshot store, Images its images, Network what tasks reach, Ahead what is made ahead of need.
	Snapshots SnapshotsConfig `codec:"snapshots"`
	Images    ImagesConfig    `codec:"images"`
	Network   NetworkConfig   `codec:"network"`
	Ahead     AheadConfig     `codec:"ahead"`
	// Builds is about builds of images.
	Builds BuildsConfig `codec:"builds"`
}

// NATSConfig is a server list and the workers' user.
type NATSConfig struct {
	URL      string `codec:"url"`
	User     string `codec:"user"`
	Password string `codec:"password"`
}

// GatewayConfig is a gateway's address, and a token with the verb call where it asks for one. Functions never see either.
type GatewayConfig struct {
	URL   string `codec:"url"`
	Token string `codec:"token"`
}

// SnapshotsConfig bounds the snapshot store, and says how it is shared.
type SnapshotsConfig struct {
	// MaxBytes is the disk it may take. Default 20 GiB.
	MaxBytes int64 `codec:"max_bytes"`
	// KeyFile is the path of the keys that seal what is pushed to the blob store (docs/snapshots.md). Without it, snapshots stay
	// on their node.
	KeyFile string `codec:"key_file"`
	// FetchTimeout bounds how long a start may fetch a snapshot before it starts cold. Default "30s".
	FetchTimeout string `codec:"fetch_timeout"`
	// SharedMaxBytes and SharedMaxAge bound what is kept in the blob store. Default 200 GiB and "720h".
	SharedMaxBytes int64  `codec:"shared_max_bytes"`
	SharedMaxAge   string `codec:"shared_max_age"`
}

// ImagesConfig is about images of registries; see image.Config, whose defaults hold.
type ImagesConfig struct {
	MaxBytes     int64           `codec:"max_bytes"`
	MaxAge       string          `codec:"max_age"`
	TagTTL       string          `codec:"tag_ttl"`
	Mirrors      []MirrorsConfig `codec:"mirrors"`
	Insecure     []string        `codec:"insecure"`
	DockerConfig string          `codec:"docker_config"`
}

// MirrorsConfig are the mirrors of one registry.
type MirrorsConfig struct {
	Registry string   `codec:"registry"`
	Mirrors  []string `codec:"mirrors"`
}

// NetworkConfig is about the networks of tasks; see network.Config, whose defaults hold.
type NetworkConfig struct {
	Name      string   `codec:"name"`
	Range     string   `codec:"range"`
	Ready     int      `codec:"ready"`
	MTU       int      `codec:"mtu"`
	Deny      []string `codec:"deny"`
	Private   []string `codec:"private"`
	Resolvers []string `codec:"resolvers"`
}

// BuildsConfig is about builds of images.
type BuildsConfig struct {
	// MaxBytes bounds what the node keeps of builds for the next ones, MaxAge how long what nobody uses. Defaults
	// buildcache.DefaultMaxBytes and buildcache.DefaultMaxAge.
	MaxBytes int64  `codec:"max_bytes"`
	MaxAge   string `codec:"max_age"`
	// Env and Files are given to each step at run time, and get into no layer: addresses of package sources, proxies, certificates.
	Env   []map[string]string `codec:"env"`
	Files []BuildFile         `codec:"file"`
}

// BuildFile is a file of the node, read anew for each build, and its place in steps.
type BuildFile struct {
	Source string `codec:"source"`
	Target string `codec:"target"`
}

// AheadConfig is about sandboxes made ahead of need.
type AheadConfig struct {
	// MemoryMB is what all of them may take. Default 0: there are none.
	MemoryMB int64 `codec:"memory_mb"`
	// Empty keeps empty sandboxes only, no thawed ones. Default false.
	Empty bool `codec:"empty"`
	// Idle is how long nothing of a function must start for its sandboxes made ahead to go. Default DefaultAheadIdle.
	Idle string `codec:"idle"`
}

func configSpec() *hclspec.Spec {
	return hclspec.NewObject(map[string]*hclspec.Spec{
		"data_dir":           hclspec.NewAttr("data_dir", "string", true),
		"runsc":              hclspec.NewAttr("runsc", "string", true),
		"worker":             hclspec.NewAttr("worker", "string", true),
		"init":               attr("init", "string"),
		"builder":            attr("builder", "string"),
		"platform":           attr("platform", "string"),
		"blobs":              attr("blobs", "string"),
		"volumes":            attr("volumes", "string"),
		"allow_host_paths":   hclspec.NewDefault(attr("allow_host_paths", "bool"), hclspec.NewLiteral("false")),
		"allow_host_network": hclspec.NewDefault(attr("allow_host_network", "bool"), hclspec.NewLiteral("false")),
		"cgroup_parent":      attr("cgroup_parent", "string"),
		"cgroup_root":        attr("cgroup_root", "string"),
		"overhead_mb":        attr("overhead_mb", "number"),
		"pids_limit":         attr("pids_limit", "number"),
		"orphan_grace":       attr("orphan_grace", "string"),
		"nats": block("nats", map[string]*hclspec.Spec{
			"url":      hclspec.NewAttr("url", "string", true),
			"user":     attr("user", "string"),
			"password": attr("password", "string"),
		}),
		"nomad": block("nomad", map[string]*hclspec.Spec{
			"address":     hclspec.NewAttr("address", "string", true),
			"token":       attr("token", "string"),
			"ca_cert":     attr("ca_cert", "string"),
			"client_cert": attr("client_cert", "string"),
			"client_key":  attr("client_key", "string"),
		}),
		"gateway": block("gateway", map[string]*hclspec.Spec{
			"url":   hclspec.NewAttr("url", "string", true),
			"token": attr("token", "string"),
		}),
		"snapshots": block("snapshots", map[string]*hclspec.Spec{
			"max_bytes":        attr("max_bytes", "number"),
			"key_file":         attr("key_file", "string"),
			"fetch_timeout":    hclspec.NewDefault(attr("fetch_timeout", "string"), hclspec.NewLiteral(`"30s"`)),
			"shared_max_bytes": hclspec.NewDefault(attr("shared_max_bytes", "number"), hclspec.NewLiteral("214748364800")),
			"shared_max_age":   hclspec.NewDefault(attr("shared_max_age", "string"), hclspec.NewLiteral(`"720h"`)),
		}),
		"images": block("images", map[string]*hclspec.Spec{
			"max_bytes": attr("max_bytes", "number"),
			"max_age":   attr("max_age", "string"),
			"tag_ttl":   attr("tag_ttl", "string"),
			"mirrors": hclspec.NewBlockList("mirrors", hclspec.NewObject(map[string]*hclspec.Spec{
				"registry": hclspec.NewAttr("registry", "string", true),
				"mirrors":  hclspec.NewAttr("mirrors", "list(string)", true),
			})),
			"insecure":      attr("insecure", "list(string)"),
			"docker_config": attr("docker_config", "string"),
		}),
		"network": block("network", map[string]*hclspec.Spec{
			"name":      attr("name", "string"),
			"range":     attr("range", "string"),
			"ready":     attr("ready", "number"),
			"mtu":       attr("mtu", "number"),
			"deny":      attr("deny", "list(string)"),
			"private":   attr("private", "list(string)"),
			"resolvers": attr("resolvers", "list(string)"),
		}),
		"builds": block("builds", map[string]*hclspec.Spec{
			"max_bytes": attr("max_bytes", "number"),
			"max_age":   attr("max_age", "string"),
			"env":       attr("env", "list(map(string))"),
			"file": hclspec.NewBlockList("file", hclspec.NewObject(map[string]*hclspec.Spec{
				"source": hclspec.NewAttr("source", "string", true),
				"target": hclspec.NewAttr("target", "string", true),
			})),
		}),
		"ahead": block("ahead", map[string]*hclspec.Spec{
			"memory_mb": attr("memory_mb", "number"),
			"empty":     attr("empty", "bool"),
			"idle":      attr("idle", "string"),
		}),
	})
}

// withDefaults fills what is not set and tells what is wrong.
func (c Config) withDefaults() (Config, error) {
	if c.Init == "" {
		c.Init = filepath.Join(filepath.Dir(c.Worker), "freshet-init")
	}
	c.Builder = cmp.Or(c.Builder, filepath.Join(filepath.Dir(c.Worker), "freshet-builder"))
	c.CgroupRoot = cmp.Or(c.CgroupRoot, cgroup.DefaultRoot)
	for _, path := range []struct{ field, value string }{
		{"data_dir", c.DataDir}, {"runsc", c.Runsc}, {"worker", c.Worker}, {"init", c.Init}, {"builder", c.Builder}, {"cgroup_root", c.CgroupRoot},
	} {
		if !filepath.IsAbs(path.value) {
			return c, fmt.Errorf("plugin config %s: %q: use an absolute path", path.field, path.value)
		}
	}
	for i, file := range c.Builds.Files {
		if !filepath.IsAbs(file.Source) || !filepath.IsAbs(file.Target) {
			return c, fmt.Errorf("plugin config builds.file[%d]: %q to %q: use absolute paths", i, file.Source, file.Target)
		}
	}
	if c.Volumes != "" && !filepath.IsAbs(c.Volumes) {
		return c, fmt.Errorf("plugin config volumes: %q: use an absolute path", c.Volumes)
	}
	c.Platform = cmp.Or(c.Platform, DefaultPlatform)
	c.CgroupParent = cmp.Or(c.CgroupParent, DefaultCgroupParent)
	c.OverheadMB = cmp.Or(c.OverheadMB, DefaultOverheadMB)
	c.PidsLimit = cmp.Or(c.PidsLimit, DefaultPidsLimit)
	c.OrphanGrace = cmp.Or(c.OrphanGrace, DefaultOrphanGrace.String())
	c.Ahead.Idle = cmp.Or(c.Ahead.Idle, DefaultAheadIdle.String())
	for _, number := range []struct {
		field string
		value int64
	}{{"overhead_mb", c.OverheadMB}, {"pids_limit", c.PidsLimit}, {"ahead.memory_mb", c.Ahead.MemoryMB}} {
		if number.value < 0 {
			return c, fmt.Errorf("plugin config %s: %d: use 0 or more", number.field, number.value)
		}
	}
	return c, nil
}

func duration(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("plugin config %s: %q: use a duration with a unit, such as \"24h\"", field, text)
	}
	return d, nil
}

// imageStore is the configuration of package image.
func (c Config) imageStore() (image.Config, error) {
	store := image.Config{
		Dir: filepath.Join(c.DataDir, "images"), MaxBytes: c.Images.MaxBytes,
		Insecure: c.Images.Insecure, DockerConfig: c.Images.DockerConfig, Mirrors: make(map[string][]string),
	}
	for _, m := range c.Images.Mirrors {
		store.Mirrors[m.Registry] = m.Mirrors
	}
	var err error
	if store.MaxAge, err = duration("images.max_age", c.Images.MaxAge); err != nil {
		return store, err
	}
	store.TagTTL, err = duration("images.tag_ttl", c.Images.TagTTL)
	return store, err
}

// pool is the configuration of package network.
func (c Config) pool() (network.Config, error) {
	pool := network.Config{Dir: filepath.Join(c.DataDir, "network"), Name: c.Network.Name, Ready: c.Network.Ready, MTU: c.Network.MTU}
	var err error
	if c.Network.Range != "" {
		if pool.Range, err = netip.ParsePrefix(c.Network.Range); err != nil {
			return pool, fmt.Errorf("plugin config network.range: %q: use an IPv4 range, such as %q", c.Network.Range, network.DefaultRange)
		}
	}
	for i, text := range c.Network.Deny {
		denied, err := network.ParseDestination(text)
		if err != nil {
			return pool, fmt.Errorf("plugin config network.deny[%d]: %w", i, err)
		}
		pool.Deny = append(pool.Deny, denied)
	}
	for i, text := range c.Network.Private {
		private, err := netip.ParsePrefix(text)
		if err != nil {
			return pool, fmt.Errorf("plugin config network.private[%d]: %q: use a CIDR", i, text)
		}
		pool.Private = append(pool.Private, private)
	}
	for i, text := range c.Network.Resolvers {
		resolver, err := netip.ParseAddr(text)
		if err != nil {
			return pool, fmt.Errorf("plugin config network.resolvers[%d]: %q: use an address", i, text)
		}
		pool.Resolvers = append(pool.Resolvers, resolver)
	}
	return pool, nil
}
