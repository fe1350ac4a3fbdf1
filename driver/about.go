// Package driver is the Nomad task driver: it translates Nomad's plugin contract into supervisors, one process an allocation,
// which outlive it.
package driver

import (
	"time"

	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
)

const (
	// Name is the driver's name in jobspecs.
	Name = "freshet"
	// Version is the plugin's.
	Version = "0.1.0"
	// handleVersion is that of the state kept by Nomad for RecoverTask.
	handleVersion = 1
	// fingerprintEvery is how often the node's ability to run sandboxes is looked at again.
	fingerprintEvery = 10 * time.Second
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
		Exec:                true,
		FSIsolation:         drivers.FSIsolationImage,
		NetIsolationModes:   []drivers.NetIsolationMode{drivers.NetIsolationModeHost, drivers.NetIsolationModeGroup},
		MustInitiateNetwork: false,
		MountConfigs:        drivers.MountConfigSupportAll,
	}
}
