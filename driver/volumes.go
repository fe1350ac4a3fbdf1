package driver

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// volumes mounts the volumes that the task names. Those of Nomad's own are mounted already, by its volume_mount.
func (s *starter) volumes(p *plan, cfg *drivers.TaskConfig) error {
	p.volumes = make(map[string]string, len(p.config.NamedVolumes))
	for i, v := range p.config.NamedVolumes {
		field := fmt.Sprintf("volume[%d]", i)
		p.volumes[v.Target] = "volume:" + v.Source + "/" + v.Name
		if v.Source != "" {
			mounted := func(m handoff.Mount) bool { return m.Target == v.Target && m.Source != "" }
			if !slices.ContainsFunc(p.task.Mounts, mounted) {
				return spec.FieldError{Field: field + ".source", Value: v.Source, Mend: "mount it: write a volume block in the group, and a volume_mount with the destination " + v.Target + " in the task"}
			}
			continue
		}
		dir, err := s.config.volume(cfg.Namespace, v.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		p.mount(dir, v.Target, v.Readonly)
	}
	return nil
}

// volume finds the directory of a volume. Both parts of its path are directories of freshet's own making, never links.
func (c Config) volume(namespace, name string) (string, error) {
	if c.Volumes == "" {
		return "", spec.FieldError{Field: "name", Value: name, Mend: "this node has no volumes: its operator names their directory in the plugin's config, volumes"}
	}
	dir := c.Volumes
	for _, part := range []string{namespace, name} {
		dir = filepath.Join(dir, part)
		info, err := os.Lstat(dir)
		if err != nil || info.Mode()&fs.ModeType != fs.ModeDir {
			return "", fmt.Errorf("no volume %s in namespace %s on this node: make it with `freshet volume create %s`", name, namespace, name)
		}
	}
	return dir, nil
}
