package jobs

import (
	"regexp"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// What a kind of device is in a job: a model of any vendor's GPUs by words of its name, whole ones, in their order. So "a100-80gb"
// finds "NVIDIA A100-SXM4-80GB" and "l4" does not find "NVIDIA L40".
const (
	anyGPU     = "gpu"
	modelOf    = "${device.model}"
	matches    = "regexp"
	wordsBegin = `(?i)\b`
	wordsJoin  = `\b.*\b`
	wordsEnd   = `\b`
)

// Device is what a worker's task asks Nomad for to get devices of a kind.
func Device(kind string, count int) *api.RequestedDevice {
	device := &api.RequestedDevice{Name: anyGPU, Count: new(uint64(count))}
	switch {
	case kind == spec.AnyGPU:
	case strings.Contains(kind, "/"): // Nomad's own name of it
		device.Name = kind
	default:
		device.Constraints = []*api.Constraint{{LTarget: modelOf, RTarget: words(kind), Operand: matches}}
	}
	return device
}

func words(kind string) string {
	parts := strings.Split(kind, "-")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return wordsBegin + strings.Join(parts, wordsJoin) + wordsEnd
}

// kindOf is the kind that a task asks for. A device that no kind stands for goes by its name in Nomad.
func kindOf(device *api.RequestedDevice) string {
	if device.Name != anyGPU {
		return device.Name
	}
	for _, constraint := range device.Constraints {
		middle := strings.TrimSuffix(strings.TrimPrefix(constraint.RTarget, wordsBegin), wordsEnd)
		kind := strings.ReplaceAll(strings.ReplaceAll(middle, wordsJoin, "-"), `\`, "")
		if constraint.LTarget == modelOf && words(kind) == constraint.RTarget {
			return kind
		}
	}
	return spec.AnyGPU
}
