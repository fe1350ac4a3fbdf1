package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// buildsDir is where the node keeps what builds made and share, in the data directory.
const buildsDir = "builds"

// maxSecret bounds one secret of a build.
const maxSecret = 1 << 20

// planBuild works out what a task takes that builds an image: no root of its own, but the image store's and the builds' directories.
func (s *starter) planBuild(cfg *drivers.TaskConfig, config spec.Config) (p plan, err error) {
	if s.config.Blobs == "" {
		return p, spec.FieldError{Field: "build", Value: config.Build.File, Mend: "this node has no blob store to put the image into: set blobs in the driver's plugin config"}
	}
	p.config, p.own = config, true
	if p.reach, err = reachOf(cfg, config, s.config.AllowHostNetwork); err != nil {
		return p, err
	}
	if p.reach.network.Kind == string(sandbox.NetworkOwn) { // one namespace for all steps, and several at once
		p.reach.network.Kind = string(sandbox.NetworkShared)
	}
	images, err := s.config.imageStore()
	if err != nil {
		return p, err
	}
	settings, err := json.Marshal(images)
	if err != nil {
		return p, fmt.Errorf("encode the image store's settings: %w", err)
	}
	p.limits, p.cpuset = s.limitsOf(cfg, config)
	p.task = handoff.Task{
		Node: cfg.NodeName, Config: config, MemoryMB: memoryMB(cfg), Blobs: s.config.Blobs, Network: p.reach.network, Files: p.reach.files,
		Runsc: s.config.Runsc, Platform: s.config.Platform, SharedDir: filepath.Join(s.config.DataDir, sharedDir),
		// Nothing that a build leaves for the next ones reaches those of another environment.
		Build: &handoff.Build{
			Dir: filepath.Join(s.config.DataDir, buildsDir, cfg.Namespace), Images: settings, Init: s.config.Init, HostPaths: s.config.AllowHostPaths,
			Env: make(map[string]string),
		},
	}
	if err := provide(p.task.Build, s.config.Builds); err != nil {
		return p, err
	}
	if p.task.Build.Context, err = contextOf(cfg, config.Build.Context); err != nil {
		return p, err
	}
	p.task.Build.Secrets, err = secretsOf(cfg, config.Build.Secrets)
	return p, err
}

// provide adds what the operator gives to each step.
func provide(to *handoff.Build, config BuildsConfig) error {
	for _, env := range config.Env {
		maps.Copy(to.Env, env)
	}
	for _, file := range config.Files {
		content, err := os.ReadFile(file.Source)
		if err != nil {
			return fmt.Errorf("plugin config builds.file: %w", err)
		}
		to.Files = append(to.Files, handoff.File{Target: file.Target, Content: string(content)})
	}
	return nil
}

// contextOf makes a context's path in the task's directory one of the node.
func contextOf(cfg *drivers.TaskConfig, named string) (string, error) {
	if named == "" || strings.HasPrefix(named, "sha256:") {
		return named, nil
	}
	var err error
	path := named
	if !filepath.IsAbs(path) {
		path, err = within(cfg, path)
	}
	if err == nil {
		_, err = os.ReadDir(path)
	}
	if err != nil {
		return "", spec.FieldError{Field: "build.context", Value: named, Mend: "name a folder that is there: " + err.Error()}
	}
	return path, nil
}

// secretsOf reads a build's secrets, which Nomad's templates wrote.
func secretsOf(cfg *drivers.TaskConfig, sources []map[string]string) (map[string][]byte, error) {
	secrets := make(map[string][]byte)
	for _, list := range sources {
		for id, source := range list {
			value, err := secretOf(cfg, source)
			if err != nil {
				return nil, spec.FieldError{Field: "build.secrets." + id, Value: source, Mend: err.Error()}
			}
			secrets[id] = value
		}
	}
	return secrets, nil
}

func secretOf(cfg *drivers.TaskConfig, source string) ([]byte, error) {
	if name, ok := strings.CutPrefix(source, spec.SecretFromEnv); ok {
		value, given := cfg.Env[name]
		if !given {
			return nil, errors.New("set this variable in the task's env or by a template with env = true")
		}
		return []byte(value), nil
	}
	path, err := within(cfg, source)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("name a file that can be read: %w", err)
	}
	defer func() { _ = file.Close() }() // read only
	value, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("name a file that can be read: %w", err)
	}
	if len(value) > maxSecret {
		return nil, fmt.Errorf("use at most %d bytes", maxSecret)
	}
	return value, nil
}
