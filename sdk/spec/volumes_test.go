package spec_test

import (
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/spec"
)

func TestVolumesOfASpec(t *testing.T) {
	for _, test := range []struct {
		volumes []spec.Volume
		field   string
	}{
		{[]spec.Volume{{Name: "models", Target: "/models", Readonly: true}, {Name: "models", Target: "/again"}}, ""},
		{[]spec.Volume{{Name: "disk", Target: "/d", Source: "csi:team-a.disk_1"}, {Name: "disk", Target: "/e", Source: "host:x"}}, ""},
		{[]spec.Volume{{Name: "../x", Target: "/models"}}, "volume[0].name"},
		{[]spec.Volume{{Name: "a", Target: "models"}}, "volume[0].target"},
		{[]spec.Volume{{Name: "a", Target: "/"}}, "volume[0].target"},
		{[]spec.Volume{{Name: "a", Target: "/a/../b"}}, "volume[0].target"},
		{[]spec.Volume{{Name: "a", Target: "/a"}, {Name: "b", Target: "/a"}}, "volume[1].target"},
		{[]spec.Volume{{Name: "a", Target: "/mounted"}}, "volume[0].target"},
		{[]spec.Volume{{Name: "a", Target: "/a", Source: "nfs:x"}}, "volume[0].source"},
		{[]spec.Volume{{Name: "a", Target: "/a", Source: "csi:a/b"}}, "volume[0].source"},
		{make([]spec.Volume, spec.MaxVolumes+1), "volume"},
	} {
		config := spec.Config{
			Code: "/srv/app", Handler: &spec.Handler{Type: spec.HandlerGo}, NamedVolumes: test.volumes, Snapshot: spec.Snapshot{Enabled: true},
		}
		config.Mounts = []spec.Mount{{Source: "/srv", Target: "/mounted", Readonly: true}}
		err := config.Validate()
		if (err == nil) != (test.field == "") || err != nil && !strings.Contains(err.Error(), test.field+": ") {
			t.Errorf("%+v: %v", test.volumes, err)
		}
	}
	build := spec.Config{Build: &spec.Build{Dockerfile: "FROM scratch"}, NamedVolumes: []spec.Volume{{Name: "a", Target: "/a"}}}
	if err := build.Validate(); err == nil || !strings.Contains(err.Error(), "volume: ") {
		t.Errorf("of a build: %v", err)
	}
}
