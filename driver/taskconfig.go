package driver

import (
	"fmt"
	"path/filepath"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// decodeTask reads and checks the task's config block, and refuses what this driver does not offer.
func decodeTask(cfg *drivers.TaskConfig, plugin Config) (spec.Config, error) {
	var raw map[string]any
	if err := cfg.DecodeDriverConfig(&raw); err != nil {
		return spec.Config{}, fmt.Errorf("decode task config: %w", err)
	}
	clean, _ := plain(raw).(map[string]any)
	config, err := spec.DecodeConfig(clean)
	if err != nil {
		return spec.Config{}, err
	}
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return spec.Config{}, err
	}
	if err := offered(config); err != nil {
		return spec.Config{}, err
	}
	return config, allowed(config, plugin)
}

// plain undoes what the plugin protocol does to a config: attributes that are not set come as nil, text as bytes.
func plain(value any) any {
	switch v := value.(type) {
	case map[string]any:
		clean := make(map[string]any, len(v))
		for key, inner := range v {
			if inner = plain(inner); inner != nil {
				clean[key] = inner
			}
		}
		return clean
	case []any:
		clean := make([]any, len(v))
		for i, inner := range v {
			clean[i] = plain(inner)
		}
		return clean
	case []byte:
		return string(v)
	}
	return value
}

// offered refuses, by name, what comes later.
func offered(config spec.Config) error {
	switch {
	case config.Handler == nil:
		return spec.FieldError{Field: "handler", Value: "", Mend: "this driver does not run tasks without a handler yet: add handler { type = \"go\" }"}
	case config.Handler.Type != spec.HandlerGo:
		return spec.FieldError{Field: "handler.type", Value: config.Handler.Type, Mend: "this driver offers \"go\" handlers only, as yet"}
	case config.Image != "":
		return spec.FieldError{Field: "image", Value: config.Image, Mend: "images are not offered yet: remove it and name a static program in code"}
	case config.Network.Egress:
		return spec.FieldError{Field: "network.egress", Value: "true", Mend: "networks are not offered yet: remove it"}
	case config.Snapshot.GPU:
		return spec.FieldError{Field: "snapshot.gpu", Value: "true", Mend: "GPU snapshots are not offered yet: remove it"}
	}
	return nil
}

// allowed refuses host paths where the operator did not allow them.
func allowed(config spec.Config, plugin Config) error {
	if plugin.AllowHostPaths {
		return nil
	}
	if filepath.IsAbs(config.Code) {
		return spec.FieldError{Field: "code", Value: config.Code, Mend: "this node allows no host paths: name a blob, or set allow_host_paths in the driver's plugin config"}
	}
	if len(config.Mounts) > 0 {
		return spec.FieldError{Field: "mount[0].source", Value: config.Mounts[0].Source, Mend: "this node allows no host paths: remove it, or set allow_host_paths in the driver's plugin config"}
	}
	return nil
}
