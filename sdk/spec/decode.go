package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// blocks are the config's nested HCL blocks. Nomad's HCL parser delivers a block as a list of one object, its JSON
// and the SDKs as the object itself.
func blocks() []string {
	return []string{"handler", "batching", "rate", "retries", "snapshot", "network", "web", "auth", "writable", "build"}
}

// DecodeConfig reads the config of a Nomad task as its API delivers it. Unknown keys are errors, because a
// misspelt limit that is ignored is a limit that is not there. It does not validate and sets no defaults.
func DecodeConfig(raw map[string]any) (Config, error) {
	flat := make(map[string]any, len(raw))
	for key, value := range raw {
		flat[key] = value
	}
	for _, key := range blocks() {
		one, err := single(key, flat[key])
		if err != nil {
			return Config{}, err
		}
		if one == nil {
			delete(flat, key)
			continue
		}
		flat[key] = one
	}
	data, err := json.Marshal(flat)
	if err != nil {
		return Config{}, fmt.Errorf("encode config: %w", err)
	}
	var cfg Config
	if err := strictJSON(data, &cfg); err != nil {
		return Config{}, fmt.Errorf("decode config: %w", err)
	}
	return cfg, nil
}

func single(key string, value any) (any, error) {
	var count int
	var first any
	switch list := value.(type) {
	case []any:
		count = len(list)
		if count > 0 {
			first = list[0]
		}
	case []map[string]any:
		count = len(list)
		if count > 0 {
			first = list[0]
		}
	default:
		return value, nil
	}
	if count > 1 {
		return nil, FieldError{Field: key, Value: fmt.Sprintf("%d blocks", count), Mend: "write the block once"}
	}
	return first, nil
}

func strictJSON(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		return nil
	}
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return FieldError{Field: wrongType.Field, Value: wrongType.Value, Mend: "write a " + wrongType.Type.String()}
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return FieldError{Field: strings.Trim(name, `"`), Value: "", Mend: "no such field; remove it or mend its spelling"}
	}
	return err
}
