package spec

import (
	"fmt"
	"regexp"
)

// MaxVolumes bounds the volumes of one function.
const MaxVolumes = 32

// Volume is a directory that functions share: what one worker writes, the others see.
type Volume struct {
	// Name is the volume's, in the function's namespace, as `freshet volume create` made it.
	Name string `json:"name"`
	// Target is its place in the sandbox, an absolute path.
	Target string `json:"target"`
	// Readonly refuses writes.
	Readonly bool `json:"readonly,omitempty"`
	// Source is a volume of Nomad's own in place of the cluster's: "csi:ID" or "host:NAME". A job written by hand has its group's volume
	// and the task's volume_mount blocks too.
	Source string `json:"source,omitempty"`
}

// compiledSource is immutable. The names are Nomad's.
var compiledSource = regexp.MustCompile(`^(csi|host):([A-Za-z0-9_.-]{1,128})$`)

// NomadVolume takes a source apart: "csi" or "host", and the volume's id. Both are empty for a volume of the cluster's own.
func (v Volume) NomadVolume() (kind, id string) {
	parts := compiledSource.FindStringSubmatch(v.Source)
	if parts == nil {
		return "", ""
	}
	return parts[1], parts[2]
}

// OwnVolumes are those that the cluster keeps itself.
func (c Config) OwnVolumes() []Volume {
	var own []Volume
	for _, v := range c.NamedVolumes {
		if v.Source == "" {
			own = append(own, v)
		}
	}
	return own
}

// UsesVolume tells whether the config names a volume of the cluster's.
func (c Config) UsesVolume(name string) bool {
	for _, v := range c.OwnVolumes() {
		if v.Name == name {
			return true
		}
	}
	return false
}

// checkVolumes checks the volumes that a config names.
func checkVolumes(c *checker, cfg Config) {
	if len(cfg.NamedVolumes) > MaxVolumes {
		c.fail("volume", fmt.Sprintf("%d blocks", len(cfg.NamedVolumes)), "use at most %d", MaxVolumes)
	}
	if len(cfg.NamedVolumes) > 0 && cfg.Build != nil {
		c.fail("volume", cfg.NamedVolumes[0].Name, "remove it: a build sees its context alone")
	}
	targets := make(map[string]bool, len(cfg.NamedVolumes)+len(cfg.Mounts))
	for _, m := range cfg.Mounts {
		targets[m.Target] = true
	}
	for i, v := range cfg.NamedVolumes {
		field := fmt.Sprintf("volume[%d].", i)
		c.name(field+"name", v.Name)
		c.absolute(field+"target", v.Target)
		if v.Target == "/" {
			c.fail(field+"target", v.Target, "use a path below the root")
		}
		if targets[v.Target] {
			c.fail(field+"target", v.Target, "something else is mounted there: use another path")
		}
		targets[v.Target] = true
		if v.Source != "" && !compiledSource.MatchString(v.Source) {
			c.fail(field+"source", v.Source, "use \"csi:ID\" or \"host:NAME\", a volume of Nomad's, or remove it for one of the cluster's own")
		}
	}
}
