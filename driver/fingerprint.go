package driver

import (
	"fmt"
	"os"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/structs"
	"golang.org/x/sys/unix"
)

// leastFree is the disk that a start needs for its own files: below it the node takes no tasks.
const leastFree = 64 << 20

// fingerprint looks at what a start needs.
func (d *Driver) fingerprint() *drivers.Fingerprint {
	starter, err := d.getStarter()
	if err != nil {
		return &drivers.Fingerprint{Health: drivers.HealthStateUndetected, HealthDescription: err.Error()}
	}
	print := &drivers.Fingerprint{
		Attributes: map[string]*structs.Attribute{
			"driver.freshet":          structs.NewBoolAttribute(true),
			"driver.freshet.version":  structs.NewStringAttribute(Version),
			"driver.freshet.runsc":    structs.NewStringAttribute(starter.runsc[:12]),
			"driver.freshet.platform": structs.NewStringAttribute(starter.config.Platform),
			"driver.freshet.snapshot": structs.NewBoolAttribute(true),
			"driver.freshet.standby":  structs.NewBoolAttribute(starter.config.Ahead.MemoryMB > 0),
			"driver.freshet.volumes":  structs.NewBoolAttribute(starter.config.Volumes != ""),
			"driver.freshet.gpu":      structs.NewBoolAttribute(false),
		},
		Health: drivers.HealthStateHealthy, HealthDescription: drivers.DriverHealthy,
	}
	if err := starter.fit(); err != nil {
		print.Health, print.HealthDescription = drivers.HealthStateUnhealthy, err.Error()
	}
	return print
}

// fit tells what keeps the node from starting tasks.
func (s *starter) fit() error {
	for _, path := range []string{s.config.Runsc, s.config.Worker, s.config.Init, s.config.DataDir} {
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(s.config.DataDir, &disk); err != nil {
		return fmt.Errorf("measure the disk of %s: %w", s.config.DataDir, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < leastFree {
		return fmt.Errorf("the disk of %s has %d MB left; a start needs %d", s.config.DataDir, free>>20, leastFree>>20)
	}
	return nil
}
