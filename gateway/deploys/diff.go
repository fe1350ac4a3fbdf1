// Package deploys knows what a deploy changes, and keeps which deploys there were.
package deploys

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Action is what a deploy does to a function.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Keep   Action = "no change"
	Delete Action = "delete"
)

// Change is what a deploy does to one function.
type Change struct {
	Function string `json:"function"`
	Action   Action `json:"action"`
	// Fields are what differs, by the names that a spec has; of a new function, all that are set.
	Fields []Field `json:"fields,omitempty"`
}

// Field is one that differs. Old or New is empty where it was not set or is no more.
type Field struct {
	Name string `json:"name"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Compare says what happens to each function when an app that has some gets others, by their names.
func Compare(before, after []spec.Function) ([]Change, error) {
	old, err := flatten(before)
	if err != nil {
		return nil, err
	}
	wanted, err := flatten(after)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(old)
	maps.Copy(all, wanted)
	changes := []Change{} // an empty list in JSON, never null
	for _, name := range slices.Sorted(maps.Keys(all)) {
		was, had := old[name]
		will, has := wanted[name]
		change := Change{Function: name, Action: Update}
		switch {
		case !has:
			change.Action = Delete
			changes = append(changes, change)
			continue
		case !had:
			change.Action = Create
		}
		if change.Fields = differences(was, will); had && len(change.Fields) == 0 {
			change.Action = Keep
		}
		changes = append(changes, change)
	}
	return changes, nil
}

func differences(old, wanted map[string]string) []Field {
	names := maps.Clone(wanted)
	maps.Copy(names, old)
	var fields []Field
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if old[name] != wanted[name] {
			fields = append(fields, Field{name, old[name], wanted[name]})
		}
	}
	return fields
}

// flatten reads each function's fields, defaults too, as their JSON names have them.
func flatten(functions []spec.Function) (map[string]map[string]string, error) {
	all := make(map[string]map[string]string, len(functions))
	for _, f := range functions {
		data, err := json.Marshal(f.WithDefaults())
		if err != nil {
			return nil, fmt.Errorf("compare function %s: %w", f.Name, err)
		}
		var tree any
		if err := json.Unmarshal(data, &tree); err != nil {
			return nil, fmt.Errorf("compare function %s: %w", f.Name, err)
		}
		all[f.Name] = make(map[string]string)
		walk("", tree, all[f.Name])
	}
	return all, nil
}

func walk(path string, value any, into map[string]string) {
	tree, ok := value.(map[string]any)
	if !ok {
		text, err := json.Marshal(value)
		if err == nil { // it was read from JSON
			into[path] = string(text)
		}
		return
	}
	for name, below := range tree {
		if path != "" {
			name = path + "." + name
		}
		walk(name, below, into)
	}
}
