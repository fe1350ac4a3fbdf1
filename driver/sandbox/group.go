package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gvisor.dev/gvisor/pkg/sentry/control"
)

// groupsPath is where a guest looks for control groups.
const groupsPath = "/sys/fs/cgroup"

// writeGroup writes values to the files of the guest's control group. gVisor makes the group when the guest starts, so this comes
// within a millisecond after that: before any runtime has come so far as to look.
func (g *Guest) writeGroup(values map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		controller, _, _ := strings.Cut(name, ".")
		file := control.CgroupControlFile{Controller: controller, Path: "/" + g.id, Name: name}
		if err := g.box.CgroupsWriteControlFile(file, values[name]); err != nil {
			return fmt.Errorf("tell the guest its %s, %q: %w", name, values[name], err)
		}
	}
	return nil
}
