package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Difference is an input in which two snapshots differ.
type Difference struct {
	// Field is its place in Inputs as JSON names it, such as "runsc", "env.LANG" or "mounts.0.source".
	Field string `json:"field"`
	// A and B are its two values, empty where it is missing. Of the environment's values only digests are shown: they are often
	// secrets.
	A string `json:"a"`
	B string `json:"b"`
}

// Why says in which inputs two snapshots differ, sorted by field: why one could not be thawed where the other was wanted. None
// when they have the same key.
func Why(a, b Inputs) ([]Difference, error) {
	left, err := flatten(a)
	if err != nil {
		return nil, err
	}
	right, err := flatten(b)
	if err != nil {
		return nil, err
	}
	fields := maps.Clone(left)
	maps.Copy(fields, right)
	var list []Difference
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		inA, hasA := left[field]
		inB, hasB := right[field]
		if inA != inB || hasA != hasB {
			list = append(list, Difference{Field: field, A: inA, B: inB})
		}
	}
	return list, nil
}

// flatten lists the inputs' values by their places.
func flatten(inputs Inputs) (map[string]string, error) {
	env := make(map[string]string, len(inputs.Env))
	for name, value := range inputs.Env {
		digest := sha256.Sum256([]byte(value))
		env[name] = "sha256:" + hex.EncodeToString(digest[:8])
	}
	inputs.Env = env
	data, err := json.Marshal(inputs)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot inputs: %w", err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("encode snapshot inputs: %w", err)
	}
	list := make(map[string]string)
	for name, value := range tree {
		flattenInto(list, name, value)
	}
	return list, nil
}

func flattenInto(list map[string]string, place string, value any) {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			flattenInto(list, place+"."+name, inner)
		}
	case []any:
		for i, inner := range value {
			flattenInto(list, place+"."+strconv.Itoa(i), inner)
		}
	case nil:
	default:
		list[place] = fmt.Sprint(value)
	}
}
