package build

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/freshet-dev/freshet/driver/image"
)

// Config is what a Dockerfile says of how to run its image.
type Config struct {
	image.Defaults
	// Labels are the image's notes.
	Labels map[string]string
	// Shell is what the shell form of RUN, CMD and ENTRYPOINT is given to.
	Shell []string
}

// defaultShell is Docker's on Linux.
func defaultShell() []string { return []string{"/bin/sh", "-c"} }

// defaultPath is what Docker gives steps of an image that says nothing.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// clone copies the config, so that a stage that begins with it does not change it.
func (c Config) clone() Config {
	c.Entrypoint, c.Cmd, c.Env, c.Shell = slices.Clone(c.Entrypoint), slices.Clone(c.Cmd), slices.Clone(c.Env), slices.Clone(c.Shell)
	c.Volumes, c.ExposedPorts, c.Labels = slices.Clone(c.Volumes), slices.Clone(c.ExposedPorts), maps.Clone(c.Labels)
	return c
}

func (c Config) defaults() image.Defaults { return c.Defaults }

// setEnv sets a variable of the image.
func (c *Config) setEnv(name, value string) {
	entry := name + "=" + value
	for i, old := range c.Env {
		if strings.HasPrefix(old, name+"=") {
			c.Env[i] = entry
			return
		}
	}
	c.Env = append(c.Env, entry)
}

// env is the image's environment by name.
func (c Config) env() map[string]string {
	values := make(map[string]string, len(c.Env))
	for _, entry := range c.Env {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	return values
}

// label notes something of the image.
func (c *Config) label(name, value string) {
	if c.Labels == nil {
		c.Labels = make(map[string]string)
	}
	c.Labels[name] = value
}

// commandLine is what a command in either form runs.
func (c Config) commandLine(line instructions.ShellDependantCmdLine) []string {
	if line.PrependShell {
		return c.inShell(strings.Join(line.CmdLine, " "))
	}
	return slices.Clone(line.CmdLine)
}

// inShell is what runs a line of the shell form.
func (c Config) inShell(line string) []string {
	shell := c.Shell
	if len(shell) == 0 {
		shell = defaultShell()
	}
	return append(slices.Clone(shell), line)
}

func (c Config) workDir() string { return cmp.Or(c.WorkingDir, "/") }

func addSorted(list []string, values ...string) []string {
	list = append(slices.Clone(list), values...)
	slices.Sort(list)
	return slices.Compact(list)
}
