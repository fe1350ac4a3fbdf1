package supervisor

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// createSandbox makes the task's empty sandbox, in its control group. Its name tells a second one of the same task apart.
func createSandbox(task handoff.Task, groups *groups, name string, log zerolog.Logger) (*sandbox.Sandbox, error) {
	var made *sandbox.Sandbox
	err := groups.start(func() (err error) {
		made, err = sandbox.Create(sandboxConfig(task, name), log)
		return err
	})
	if err != nil && made != nil {
		return nil, errors.Join(err, made.Destroy())
	}
	return made, err
}

func sandboxConfig(task handoff.Task, name string) sandbox.Config {
	program := task.Program
	config := sandbox.Config{
		ID: name, Runsc: task.Runsc, Platform: task.Platform,
		StateDir: filepath.Join(task.StateDir, handoff.SandboxDir), SharedDir: task.SharedDir,
		Rootfs: task.Root.Dir, Args: program.Args, Cwd: program.Dir, User: program.User,
		Capabilities: program.Capabilities, AllowNewPrivileges: program.NewPrivileges, Hostname: program.Hostname,
		Network: sandbox.Network(task.Network.Kind), NetNS: task.Network.Namespace,
	}
	if task.Group != nil {
		config.ID, config.Group = task.Group.Name, task.Group.Values
	}
	for _, variable := range slices.Sorted(maps.Keys(program.Env)) {
		config.Env = append(config.Env, variable+"="+program.Env[variable])
	}
	if !task.Root.Readonly {
		config.Overlay = &sandbox.Overlay{Dir: task.Root.WritesDir, Size: task.Root.WritesBytes}
	}
	for _, m := range task.Mounts {
		config.Mounts = append(config.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target, Writable: !m.Readonly, Size: m.Bytes})
	}
	for _, f := range task.Files {
		config.Files = append(config.Files, sandbox.File{Target: f.Target, Content: f.Content})
	}
	for _, l := range program.Limits {
		config.Ulimits = append(config.Ulimits, sandbox.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	if program.TTY {
		config.Terminal = &sandbox.WindowSize{Rows: 24, Cols: 80} // until somebody attaches and says otherwise
	}
	return config
}
