package jobspecs

import (
	"strconv"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// requests are the volumes of Nomad's own that a group asks for, with what places it where they are.
func requests(volumes []spec.Volume) map[string]*api.VolumeRequest {
	var asked map[string]*api.VolumeRequest
	for i, v := range volumes {
		kind, id := v.NomadVolume()
		if kind == "" {
			continue
		}
		request := &api.VolumeRequest{Name: volumeName(i), Type: kind, Source: id, ReadOnly: v.Readonly}
		if kind == "csi" {
			request.AttachmentMode, request.AccessMode = "file-system", "multi-node-multi-writer"
			if v.Readonly {
				request.AccessMode = "multi-node-reader-only"
			}
		}
		if asked == nil {
			asked = make(map[string]*api.VolumeRequest)
		}
		asked[request.Name] = request
	}
	return asked
}

func volumeMounts(volumes []spec.Volume) []*api.VolumeMount {
	var mounts []*api.VolumeMount
	for i, v := range volumes {
		if kind, _ := v.NomadVolume(); kind != "" {
			mounts = append(mounts, &api.VolumeMount{Volume: new(volumeName(i)), Destination: new(v.Target), ReadOnly: new(v.Readonly)})
		}
	}
	return mounts
}

func volumeName(i int) string { return "volume-" + strconv.Itoa(i) }

// constraints place a function with volumes of the cluster's own on nodes that have them.
func constraints(f spec.Function) []*api.Constraint {
	if len(f.OwnVolumes()) == 0 {
		return nil
	}
	return []*api.Constraint{{LTarget: "${attr.driver.freshet.volumes}", Operand: "=", RTarget: "true"}}
}
