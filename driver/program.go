package driver

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/guestinit"
	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/python"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	// guestEnv makes an SDK's program serve instead of deploy.
	guestEnv = "FRESHET_GUEST"
	// initPath is where freshet-init is in the sandbox of an exec or http handler.
	initPath = "/.freshet/init"
	// defaultPath is what docker gives a process whose image says nothing.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// pull brings the task's image, where it has one, and tells people how far it is.
func (s *starter) pull(ctx context.Context, id string, cfg *drivers.TaskConfig, config spec.Config, tell func(string)) (*image.Image, error) {
	if config.Image == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, config.ImagePullTimeout.Std(),
		fmt.Errorf("the image was not pulled within image_pull_timeout, %s", config.ImagePullTimeout))
	defer cancel()
	request := image.Request{Task: id, Reference: imageReference(cfg, config.Image), Force: config.ForcePull, Progress: progress(config.Image, tell)}
	if config.Auth != nil {
		request.Auth = image.Auth{Username: config.Auth.Username, Password: config.Auth.Password, Server: config.Auth.ServerAddress}
	}
	pulled, err := s.images.Image(ctx, request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return nil, err
	}
	return pulled, nil
}

// imageReference makes an archive's path within the task's directory, such as one that Nomad downloaded, one of the node.
func imageReference(cfg *drivers.TaskConfig, reference string) string {
	for _, transport := range []string{"docker-archive:", "oci-archive:", "oci:"} {
		path, ok := strings.CutPrefix(reference, transport)
		if ok && filepath.IsLocal(path) {
			return transport + filepath.Join(cfg.TaskDir().Dir, path)
		}
	}
	return reference
}

// progress turns a pull's progress into a few lines for people: at its begin and at each layer.
func progress(reference string, tell func(string)) func(image.Progress) {
	last := -1
	return func(p image.Progress) {
		if p.LayersDone == last {
			return
		}
		last = p.LayersDone
		tell(fmt.Sprintf("pulling %s: %d of %d layers, %d of %d MB", reference, p.LayersDone, p.Layers, p.BytesDone>>20, p.Bytes>>20))
	}
}

// program is the guest's first process.
func (s *starter) program(cfg *drivers.TaskConfig, config spec.Config, pulled *image.Image) (handoff.Program, error) {
	var defaults image.Defaults
	if pulled != nil {
		defaults = pulled.Defaults
	}
	program := handoff.Program{
		Env: environment(cfg, config, defaults), User: cmp.Or(cfg.User, defaults.User), Dir: cmp.Or(config.WorkDir, defaults.WorkingDir),
		TTY: config.TTY, Hostname: hostname(cfg, config), NewPrivileges: config.Handler == nil,
	}
	if isPython(config) && config.Code != "" {
		program.Dir = cmp.Or(program.Dir, python.Code) // where its files are found by their names
	}
	var err error
	if program.Args, err = command(config, defaults); err != nil {
		return program, err
	}
	for _, limits := range config.Ulimit {
		for name, text := range limits {
			soft, hard, err := spec.ParseUlimit(text)
			if err != nil {
				return program, spec.FieldError{Field: "ulimit." + name, Value: text, Mend: "use a number, or soft:hard"}
			}
			program.Limits = append(program.Limits, handoff.Limit{Name: name, Soft: soft, Hard: hard})
		}
	}
	slices.SortFunc(program.Limits, func(a, b handoff.Limit) int { return strings.Compare(a.Name, b.Name) })
	if config.Handler == nil || len(config.CapAdd) > 0 {
		drop := config.CapDrop
		if config.Handler != nil {
			drop = append([]string{"all"}, drop...) // a handler begins with none
		}
		if program.Capabilities, err = sandbox.Capabilities(config.CapAdd, drop); err != nil {
			return program, err
		}
	}
	return program, underInit(&program, config)
}

// command is what docker would run: an entry point of the task's own drops the image's arguments.
func command(config spec.Config, defaults image.Defaults) ([]string, error) {
	if config.Handler != nil && config.Handler.Type == spec.HandlerGo {
		return append([]string{image.Program}, config.Args...), nil
	}
	if isPython(config) {
		return append(append([]string{cmp.Or(config.Command, python.Interpreter)}, config.Args...), python.Worker), nil
	}
	entry, args := defaults.Entrypoint, defaults.Cmd
	if len(config.Entrypoint) > 0 {
		entry, args = config.Entrypoint, nil
	}
	if config.Command != "" {
		args = append([]string{config.Command}, config.Args...)
	} else if len(config.Args) > 0 {
		args = config.Args
	}
	all := append(slices.Clone(entry), args...)
	if len(all) == 0 && config.Code != "" {
		all = []string{image.Program}
	}
	if len(all) == 0 {
		return nil, spec.FieldError{Field: "command", Value: "", Mend: "name a program: neither the task nor its image does"}
	}
	return all, nil
}

// underInit puts freshet-init before the program of a handler that knows nothing of freshet.
func underInit(program *handoff.Program, config spec.Config) error {
	if config.Handler == nil || config.Handler.Type == spec.HandlerGo || isPython(config) {
		return nil
	}
	settings := guestinit.Settings{Dir: program.Dir}
	switch config.Handler.Type {
	case spec.HandlerExec:
		settings.Exec = &guestinit.Exec{Command: program.Args}
	case spec.HandlerHTTP:
		settings.HTTP = &guestinit.HTTP{Command: program.Args, Port: config.Handler.Port, Ready: config.Handler.Ready, Live: config.Handler.Live}
	}
	if err := settings.WithDefaults().Validate(); err != nil {
		return err
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return fmt.Errorf("encode handler's settings: %w", err)
	}
	program.Args, program.Env[guestinit.SettingsEnv] = []string{initPath}, string(text)
	return nil
}

// environment is the image's and the job's. A handler does not see Nomad's variables: they name the allocation, and a guest that saw
// them would freeze them into a snapshot that others thaw.
func environment(cfg *drivers.TaskConfig, config spec.Config, defaults image.Defaults) map[string]string {
	env := make(map[string]string, len(cfg.Env)+len(defaults.Env)+2)
	if config.Image != "" {
		env["PATH"] = defaultPath
	}
	for _, variable := range defaults.Env {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	for name, value := range cfg.Env {
		if config.Handler == nil || !strings.HasPrefix(name, "NOMAD_") {
			env[name] = value
		}
	}
	if config.Handler != nil && config.Handler.Type == spec.HandlerGo {
		env[guestEnv] = "1"
	}
	if config.TTY {
		setMissing(env, "TERM", "xterm")
	}
	return env
}

func setMissing(env map[string]string, name, value string) {
	if _, ok := env[name]; !ok {
		env[name] = value
	}
}

// hostname is the task's own, like a container's; copies of a handler's snapshot must not have one that they share with the frozen
// one alone, so all have the same.
func hostname(cfg *drivers.TaskConfig, config spec.Config) string {
	switch {
	case config.Hostname != "":
		return config.Hostname
	case config.Handler != nil:
		return "" // the sandbox's default
	case cfg.NetworkIsolation != nil && cfg.NetworkIsolation.HostsConfig != nil && cfg.NetworkIsolation.HostsConfig.Hostname != "":
		return cfg.NetworkIsolation.HostsConfig.Hostname
	case len(cfg.AllocID) >= 12:
		return strings.ReplaceAll(cfg.AllocID[:13], "-", "")
	}
	return cfg.AllocID
}
