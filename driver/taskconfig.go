package driver

import (
	"fmt"
	"path/filepath"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/image"
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
	if h := config.Handler; h != nil && h.Type == spec.HandlerModal {
		return spec.FieldError{Field: "handler.type", Value: h.Type, Mend: "this driver offers \"go\", \"python\", \"exec\" and \"http\" handlers, as yet"}
	}
	if config.Snapshot.GPU {
		return spec.FieldError{Field: "snapshot.gpu", Value: "true", Mend: "GPU snapshots are not offered yet: remove it"}
	}
	if config.Image == "" && config.Code == "" && config.Build == nil {
		return spec.FieldError{Field: "image", Value: "", Mend: "name an image, or a static program in code"}
	}
	return nil
}

// allowed refuses paths of the node where the operator did not allow them.
func allowed(config spec.Config, plugin Config) error {
	if plugin.AllowHostPaths {
		return nil
	}
	refuse := func(field, value string) error {
		return spec.FieldError{Field: field, Value: value, Mend: "this node allows no paths of its own: name one in the task's directory, or set allow_host_paths in the driver's plugin config"}
	}
	if filepath.IsAbs(config.Code) {
		return refuse("code", config.Code)
	}
	if config.Build != nil && filepath.IsAbs(config.Build.Context) {
		return refuse("build.context", config.Build.Context)
	}
	if path, ok := image.HostPath(config.Image); ok && filepath.IsAbs(path) {
		return refuse("image", config.Image)
	}
	for i, m := range config.Mounts {
		if filepath.IsAbs(m.Source) {
			return refuse(fmt.Sprintf("mount[%d].source", i), m.Source)
		}
	}
	for i, text := range config.Volumes {
		if filepath.IsAbs(text) {
			return refuse(fmt.Sprintf("volumes[%d]", i), text)
		}
	}
	return nil
}
