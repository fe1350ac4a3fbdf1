package driver

import (
	"os"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/structs"
)

func (d *Driver) fingerprint() *drivers.Fingerprint {
	starter, err := d.getStarter()
	if err != nil {
		return &drivers.Fingerprint{Health: drivers.HealthStateUndetected, HealthDescription: err.Error()}
	}
	for _, path := range []string{starter.config.Runsc, starter.config.Worker, starter.config.DataDir} {
		if _, err := os.Stat(path); err != nil {
			return &drivers.Fingerprint{Health: drivers.HealthStateUnhealthy, HealthDescription: err.Error()}
		}
	}
	return &drivers.Fingerprint{
		Attributes: map[string]*structs.Attribute{
			"driver.freshet":          structs.NewBoolAttribute(true),
			"driver.freshet.version":  structs.NewStringAttribute(Version),
			"driver.freshet.runsc":    structs.NewStringAttribute(starter.runsc[:12]),
			"driver.freshet.platform": structs.NewStringAttribute(starter.config.Platform),
			"driver.freshet.snapshot": structs.NewBoolAttribute(true),
		},
		Health: drivers.HealthStateHealthy, HealthDescription: drivers.DriverHealthy,
	}
}
