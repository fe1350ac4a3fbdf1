// Package driver is the Nomad task driver: it translates Nomad's plugin contract into supervisors, one process an allocation,
// which outlive it.
package driver

import (
	"time"

	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
)

const (
	// Name is the driver's name in jobspecs.
	Name = "freshet"
	// Version is the plugin's.
	Version = "0.1.0"
	// handleVersion is that of the state kept by Nomad for RecoverTask.
	handleVersion = 1
	// fingerprintEvery is how often the node's ability to run sandboxes is looked at again.
	fingerprintEvery = 30 * time.Second
)

func pluginInfo() *base.PluginInfoResponse {
	return &base.PluginInfoResponse{
		Type: base.PluginTypeDriver, PluginApiVersions: []string{drivers.ApiVersion010},
		PluginVersion: Version, Name: Name,
	}
}

func capabilities() *drivers.Capabilities {
	return &drivers.Capabilities{
		SendSignals:         true,
		Exec:                false,
		FSIsolation:         drivers.FSIsolationImage,
		NetIsolationModes:   []drivers.NetIsolationMode{drivers.NetIsolationModeHost},
		MustInitiateNetwork: false,
		MountConfigs:        drivers.MountConfigSupportNone,
	}
}

// Config is the plugin's block in the agent's configuration.
type Config struct {
	// DataDir is where the driver keeps tasks, root file systems and snapshots. Needed.
	DataDir string `codec:"data_dir"`
	// Runsc and Worker are the paths of the pinned runsc and of freshet-worker. Needed.
	Runsc  string `codec:"runsc"`
	Worker string `codec:"worker"`
	// Platform is how gVisor intercepts system calls, "systrap" or "kvm". Default "systrap".
	Platform string `codec:"platform"`
	// Blobs is the URL of the cluster's blob store. Needed for code named by digest.
	Blobs string `codec:"blobs"`
	// AllowHostPaths lets jobs name programs and mounts by their path on the node. Default false.
	AllowHostPaths bool `codec:"allow_host_paths"`
	// NATS is how the workers reach the queue. Needed.
	NATS NATSConfig `codec:"nats"`
	// Snapshots bounds the node's snapshot store.
	Snapshots SnapshotsConfig `codec:"snapshots"`
}

// NATSConfig is a server list and the workers' user.
type NATSConfig struct {
	URL      string `codec:"url"`
	User     string `codec:"user"`
	Password string `codec:"password"`
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

func configSpec() *hclspec.Spec {
	return hclspec.NewObject(map[string]*hclspec.Spec{
		"data_dir":         hclspec.NewAttr("data_dir", "string", true),
		"runsc":            hclspec.NewAttr("runsc", "string", true),
		"worker":           hclspec.NewAttr("worker", "string", true),
		"platform":         hclspec.NewDefault(hclspec.NewAttr("platform", "string", false), hclspec.NewLiteral(`"systrap"`)),
		"blobs":            hclspec.NewAttr("blobs", "string", false),
		"allow_host_paths": hclspec.NewDefault(hclspec.NewAttr("allow_host_paths", "bool", false), hclspec.NewLiteral("false")),
		"nats": hclspec.NewBlock("nats", true, hclspec.NewObject(map[string]*hclspec.Spec{
			"url":      hclspec.NewAttr("url", "string", true),
			"user":     hclspec.NewAttr("user", "string", false),
			"password": hclspec.NewAttr("password", "string", false),
		})),
		"snapshots": hclspec.NewBlock("snapshots", false, hclspec.NewObject(map[string]*hclspec.Spec{
			"max_bytes":        hclspec.NewAttr("max_bytes", "number", false),
			"key_file":         hclspec.NewAttr("key_file", "string", false),
			"fetch_timeout":    hclspec.NewDefault(hclspec.NewAttr("fetch_timeout", "string", false), hclspec.NewLiteral(`"30s"`)),
			"shared_max_bytes": hclspec.NewDefault(hclspec.NewAttr("shared_max_bytes", "number", false), hclspec.NewLiteral("214748364800")),
			"shared_max_age":   hclspec.NewDefault(hclspec.NewAttr("shared_max_age", "string", false), hclspec.NewLiteral(`"720h"`)),
		})),
	})
}
