package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/freshet-dev/freshet/driver/sandbox"
)

const (
	// scriptPath is where a script of a heredoc is in a step's sandbox.
	scriptPath = "/.freshet/script"
	// secretsDir is where secrets are by default (docs.docker.com/reference/dockerfile).
	secretsDir = "/run/secrets"
	cachesDir  = "caches"
	// sharedDir holds, in steps, the directories that the node gives to each of them.
	sharedDir = "/run/freshet/caches"
)

// doRun runs a command and keeps what it changed.
func (s *stage) doRun(ctx context.Context, c *instructions.RunCommand) error {
	step := Step{
		Root: s.root(), Dir: s.config.workDir(), User: s.config.User, Network: instructions.GetNetwork(c) != instructions.NetworkNone,
		DiskBytes: s.run.builder.DiskBytes,
	}
	if step.DiskBytes <= 0 {
		step.DiskBytes = DefaultDiskBytes
	}
	if err := s.script(c, &step); err != nil {
		return err
	}
	env := s.values()
	if env["PATH"] == "" {
		env["PATH"] = defaultPath
	}
	inputs := []any{s.key, "run", step.Args, step.Files, maps.Clone(env), step.Dir, step.User, step.Network}
	for _, name := range predefinedArgs {
		if value, ok := s.run.req.Args[name]; ok {
			env[name] = value
		}
	}
	for _, mount := range instructions.GetMounts(c) {
		input, err := s.mount(ctx, mount, &step, env)
		if err != nil {
			return err
		}
		inputs = append(inputs, input)
	}
	if err := s.run.builder.provide(&step, env); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		step.Env = append(step.Env, name+"="+env[name])
	}
	return s.step(ctx, c, keyOf(inputs...), func(l *layerWriter) error { return s.runStep(ctx, c, step, l) })
}

// provide adds what the node gives to each step: where the Dockerfile says something else, that stands.
func (b *Builder) provide(step *Step, env map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(b.Caches)) {
		if _, set := env[name]; set {
			continue
		}
		dir := filepath.Join(b.Dir, cachesDir, b.Caches[name])
		if err := useCache(dir); err != nil {
			return err
		}
		env[name] = path.Join(sharedDir, b.Caches[name])
		step.Mounts = append(step.Mounts, sandbox.Mount{Source: dir, Target: env[name], Writable: true})
	}
	for name, value := range b.Env {
		if _, set := env[name]; !set {
			env[name] = value
		}
	}
	return nil
}

// useCache makes a directory that steps share, and marks it used now.
func useCache(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		return fmt.Errorf("mark cache used: %w", err)
	}
	return nil
}

// script is what a RUN runs: a command line, a line for the shell, or a script.
func (s *stage) script(c *instructions.RunCommand, step *Step) error {
	if len(c.Files) == 0 {
		step.Args = s.config.commandLine(c.ShellDependantCmdLine)
		return nil
	}
	if !c.PrependShell || len(c.CmdLine) != 1 {
		return errors.New("a heredoc needs the shell form: RUN <<EOF")
	}
	line := c.CmdLine[0]
	if here, err := parser.ParseHeredoc(line); err != nil || here == nil { // one of several things on the line: the shell reads it
		for _, file := range c.Files {
			line += "\n" + file.Data + file.Name
		}
		step.Args = s.config.inShell(line)
		return nil
	}
	script := c.Files[0].Data
	if c.Files[0].Chomp {
		script = parser.ChompHeredocContent(script)
	}
	interpreter, hasOwn := strings.CutPrefix(script, "#!")
	if !hasOwn {
		step.Args = s.config.inShell(script)
		return nil
	}
	interpreter, _, _ = strings.Cut(interpreter, "\n")
	step.Args = append(strings.Fields(interpreter), scriptPath)
	step.Files = append(step.Files, sandbox.File{Target: scriptPath, Content: script})
	return nil
}

// mount adds what --mount asks for, and returns what of it makes the step another one.
func (s *stage) mount(ctx context.Context, m *instructions.Mount, step *Step, env map[string]string) (any, error) {
	target := m.Target
	if target != "" && !path.IsAbs(target) {
		target = path.Join(step.Dir, target)
	}
	switch m.Type {
	case instructions.MountTypeTmpfs:
		step.Mounts = append(step.Mounts, sandbox.Mount{Target: target, Writable: true, Size: m.SizeLimit})
		return []any{"tmpfs", target, m.SizeLimit}, nil
	case instructions.MountTypeCache:
		dir, err := s.run.builder.cache(m, target)
		step.Mounts = append(step.Mounts, sandbox.Mount{Source: dir, Target: target, Writable: !m.ReadOnly})
		return []any{"cache", target, m.CacheID}, err
	case instructions.MountTypeSecret:
		return s.secret(m, target, step, env)
	case instructions.MountTypeBind:
		return s.bind(ctx, m, target, step)
	}
	return nil, fmt.Errorf("--mount=type=%s is not offered", m.Type)
}

// cache is a directory that steps with the same id share, over builds.
func (b *Builder) cache(m *instructions.Mount, target string) (string, error) {
	id := m.CacheID
	if id == "" {
		id = target
	}
	dir := filepath.Join(b.Dir, cachesDir, keyOf(id))
	if err := useCache(dir); err != nil {
		return "", err
	}
	if m.Mode != nil {
		if err := os.Chmod(dir, os.FileMode(*m.Mode)); err != nil {
			return "", fmt.Errorf("make cache: %w", err)
		}
	}
	uid, gid := 0, 0
	if m.UID != nil {
		uid = int(*m.UID) //nolint:gosec // the parser read it as 32 bits
	}
	if m.GID != nil {
		gid = int(*m.GID) //nolint:gosec // as above
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	return dir, nil
}

// secret shows a secret to the step, as a file or a variable. Its value is in no key: a new password is no new step.
func (s *stage) secret(m *instructions.Mount, target string, step *Step, env map[string]string) (any, error) {
	id := m.CacheID
	if id == "" {
		id = path.Base(target)
	}
	value, given := s.run.req.Secrets[id]
	if !given {
		if m.Required {
			return nil, fmt.Errorf("the secret %q is needed and was not given", id)
		}
		return []any{"secret", id, "none"}, nil
	}
	if m.Env != nil {
		name := *m.Env
		if name == "" {
			name = id
		}
		env[name] = string(value)
		if target == "" {
			return []any{"secret", id, name}, nil
		}
	}
	if target == "" {
		target = path.Join(secretsDir, id)
	}
	step.Files = append(step.Files, sandbox.File{Target: target, Content: string(value)})
	return []any{"secret", id, target}, nil
}

// bind shows files of the context, a stage or an image to the step.
func (s *stage) bind(ctx context.Context, m *instructions.Mount, target string, step *Step) (any, error) {
	from, err := s.source(ctx, m.From)
	if err != nil {
		return nil, err
	}
	if from.root == "" {
		return nil, errors.New("--mount=type=bind: there is no build context")
	}
	at, err := from.resolve(clean(m.Source))
	if err != nil {
		return nil, err
	}
	seen := newItems(s, ownership{})
	if err := seen.add(from, clean(m.Source), place{path: "bound", dir: true}); err != nil {
		return nil, err
	}
	digest, err := seen.digest()
	if err != nil {
		return nil, err
	}
	if from.ignored != nil { // only what is not ignored may be seen
		if at, err = s.expose(ctx, seen); err != nil {
			return nil, err
		}
	}
	step.Mounts = append(step.Mounts, sandbox.Mount{Source: at, Target: target})
	return []any{"bind", target, digest}, nil
}

// expose lays out the files of a context of which some are left out.
func (s *stage) expose(ctx context.Context, seen *items) (string, error) {
	dir, err := s.run.scratch.dir(s.run.builder)
	if err != nil {
		return "", err
	}
	for _, one := range seen.list {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err := one.layOut(dir); err != nil {
			return "", fmt.Errorf("lay out %s: %w", one.name, err)
		}
	}
	return filepath.Join(dir, "bound"), nil
}

// runStep runs the command in a sandbox.
func (s *stage) runStep(ctx context.Context, c *instructions.RunCommand, step Step, l *layerWriter) error {
	lines := &lineWriter{tell: func(text string) {
		s.run.tell(Event{Kind: StepOutput, Stage: s.name, Step: c.String(), Line: lineOf(c.Location()), Text: text})
	}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines.exceeded = func(what string) { cancel(fmt.Errorf("the step printed more than %s", what)) }
	step.Output, step.Upper = lines, l.writeUpper
	dir, err := s.run.scratch.dir(s.run.builder)
	if err != nil {
		return err
	}
	step.StateDir = dir
	exit, err := s.run.builder.Runner.Run(ctx, step)
	lines.flush()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	if exit.Code != 0 || exit.Signal != 0 || exit.Lost != "" {
		return &StepError{Exit: exit, Output: lines.last()}
	}
	return nil
}
