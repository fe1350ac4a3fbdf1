package apm

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]query{
		"pending":                    {},
		"pending/h100":               {kind: "h100"},
		"pending/nomad/file/mock":    {kind: "nomad/file/mock"},
		"nodes/gpu/8":                {class: "gpu", each: 8},
		"nodes/gpu/8/h100":           {class: "gpu", each: 8, kind: "h100"},
		"nodes/gpu/1/nvidia/gpu":     {class: "gpu", each: 1, kind: "nvidia/gpu"},
		"nodes/a class/2/a100-80gb/": {class: "a class", each: 2, kind: "a100-80gb/"},
	} {
		if got, err := parse(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "pendin", "nodes", "nodes/", "nodes/gpu", "nodes//8", "nodes/gpu/0", "nodes/gpu/-1", "nodes/gpu/many", "nodes/gpu//h100"} {
		if got, err := parse(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}
