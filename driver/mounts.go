package driver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/python"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// The places of Nomad's directories in a task with a root of its own.
const (
	allocTarget   = "/alloc"
	localTarget   = "/local"
	secretsTarget = "/secrets"
)

// mounts adds what the guest sees beside its root.
func (s *starter) mounts(p *plan, cfg *drivers.TaskConfig, code image.Root) error {
	p.own = p.own || len(cfg.Mounts) > 0
	s.mountCode(p, code)
	if err := p.taskDirs(cfg); err != nil {
		return err
	}
	for _, m := range cfg.Mounts { // volumes, which Nomad has checked
		p.mount(m.HostPath, m.TaskPath, m.Readonly)
	}
	if err := s.volumes(p, cfg); err != nil {
		return err
	}
	if size := p.config.ShmSize; size > 0 {
		p.task.Mounts = append(p.task.Mounts, handoff.Mount{Target: "/dev/shm", Bytes: size})
	}
	for i, m := range p.config.Mounts {
		if err := p.add(fmt.Sprintf("mount[%d]", i), m, cfg); err != nil {
			return err
		}
	}
	for i, text := range p.config.Volumes {
		field := fmt.Sprintf("volumes[%d]", i)
		m, err := spec.ParseVolume(text)
		if err != nil {
			return spec.FieldError{Field: field, Value: text, Mend: "use \"source:/target\" or \"source:/target:ro\""}
		}
		if err := p.add(field, m, cfg); err != nil {
			return err
		}
	}
	return nil
}

// mountCode adds the function's code, and what the handler itself brings.
func (s *starter) mountCode(p *plan, code image.Root) {
	if isPython(p.config) {
		p.mount(s.python, python.Dir, true)
		if code.Dir != "" {
			p.mount(code.Dir, python.Code, true)
		}
		return
	}
	if code.Dir != "" && p.image != nil {
		p.mount(filepath.Join(code.Dir, filepath.Dir(image.Program)), filepath.Dir(image.Program), true)
	}
	if h := p.config.Handler; h != nil && h.Type != spec.HandlerGo {
		p.mount(s.config.Init, initPath, true)
	}
}

func (p *plan) mount(source, target string, readonly bool) {
	p.task.Mounts = append(p.task.Mounts, handoff.Mount{Source: source, Target: target, Readonly: readonly})
}

// taskDirs mounts Nomad's directories. A handler sees those that hold something, read-only: a frozen guest must not depend on
// what somebody may write later, and whether it may at all is what a snapshot's key says.
func (p *plan) taskDirs(cfg *drivers.TaskConfig) error {
	dirs := cfg.TaskDir()
	if p.config.Handler == nil {
		p.mount(dirs.SharedAllocDir, allocTarget, false)
		p.mount(dirs.LocalDir, localTarget, false)
		p.mount(dirs.SecretsDir, secretsTarget, false)
		return nil
	}
	for _, dir := range []struct{ source, target string }{{dirs.LocalDir, localTarget}, {dirs.SecretsDir, secretsTarget}} {
		entries, err := os.ReadDir(dir.source)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look into the task's directory: %w", err)
		}
		written := slices.DeleteFunc(entries, func(e os.DirEntry) bool { return nomads(e.Name()) })
		if len(written) > 0 {
			p.mount(dir.source, dir.target, true)
			p.own = true
		}
	}
	return nil
}

// nomads tells of the files in a task's directory that Nomad puts there by itself: its own mark, its API's socket, and the token for that.
// They are other ones for each allocation, and say nothing of what the job wants its task to have.
func nomads(name string) bool {
	return name == ".nomad-mount" || name == "api.sock" || name == "nomad_token"
}

// add adds a mount of the task's config.
func (p *plan) add(field string, m spec.Mount, cfg *drivers.TaskConfig) error {
	if m.Type == spec.MountTmpfs {
		mount := handoff.Mount{Target: m.Target}
		for _, options := range m.TmpfsOptions {
			mount.Bytes = options.Size
		}
		p.task.Mounts = append(p.task.Mounts, mount)
		return nil
	}
	source := m.Source
	if !filepath.IsAbs(source) {
		p.own = true
		var err error
		if source, err = within(cfg, source); err != nil {
			return spec.FieldError{Field: field + ".source", Value: m.Source, Mend: err.Error()}
		}
	}
	if _, err := os.Stat(source); err != nil {
		return spec.FieldError{Field: field + ".source", Value: m.Source, Mend: fmt.Sprintf("name what is there: %v", err)}
	}
	p.mount(source, m.Target, m.Readonly)
	return nil
}

// within finds a path of the task's directory. What it leads to must be there too: a task that ran before could have left a link.
func within(cfg *drivers.TaskConfig, path string) (string, error) {
	root := cfg.TaskDir().Dir
	found, err := filepath.EvalSymlinks(filepath.Join(root, path))
	if err != nil {
		return "", fmt.Errorf("name a path in the task's directory: %w", err)
	}
	root, err = filepath.EvalSymlinks(root)
	if err != nil {
		return "", fmt.Errorf("find the task's directory: %w", err)
	}
	if !below(root, found) {
		return "", errors.New("name a path in the task's directory; this one leads out of it")
	}
	return found, nil
}

// below tells whether a path is the directory or in it.
func below(dir, path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// fifo is the path if there is a named pipe: Nomad's collector makes one where it runs.
func fifo(path string) string {
	info, err := os.Stat(path)
	if path == "" || err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		return ""
	}
	return path
}
