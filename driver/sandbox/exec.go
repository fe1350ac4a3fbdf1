package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/specutils"
)

// ExecConfig describes a further process in a running sandbox.
type ExecConfig struct {
	// Args is the command line; Args[0] is a path in the guest, or a name to look up in its PATH.
	Args []string
	// Env is added to the guest's environment, as NAME=value.
	Env []string
	// Cwd is the working directory, the guest's first one where it is empty.
	Cwd string
	// User is who runs Args, in docker's forms and by the accounts of the rootfs; empty: the same as the guest's first process.
	User string
	// Stdin, Stdout and Stderr are the process's streams; where one is nil it is /dev/null. Without a terminal the guest gets the
	// files themselves: hand it pipes. With one they are relayed, Stderr is not used, and Stdin must be one that a deadline can
	// interrupt, as the ends of os.Pipe are.
	Stdin, Stdout, Stderr *os.File
	// Terminal runs the process in a terminal of that size.
	Terminal *WindowSize
	// Resize brings the terminal's later sizes.
	Resize <-chan WindowSize
}

// Exec runs a process beside the guest's first one until it ends, and says how. When ctx ends, the process and what else is in
// its process group are killed, and the error is the context's cause. A program that is not there is ErrNotFound, one that is
// none ErrNotExecutable. Thawed copies of the sandbox do not have the process.
func (g *Guest) Exec(ctx context.Context, cfg ExecConfig) (Exit, error) {
	args, err := g.execArgs(cfg)
	if err != nil {
		return Exit{}, fmt.Errorf("exec in sandbox: %w", err)
	}
	if cfg.Terminal != nil {
		return g.execInTerminal(ctx, cfg, args)
	}
	files := [3]*os.File{cfg.Stdin, cfg.Stdout, cfg.Stderr}
	for i, file := range files {
		if file != nil {
			continue
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return Exit{}, fmt.Errorf("exec in sandbox: %w", err)
		}
		defer closeAll(null)
		files[i] = null
	}
	pid, err := g.begin(args, files)
	if err != nil {
		return Exit{}, err
	}
	return g.end(ctx, pid)
}

// begin starts a process.
func (g *Guest) begin(args *control.ExecArgs, files [3]*os.File) (int32, error) {
	args.FilePayload = control.NewFilePayload(map[int]*os.File{0: files[0], 1: files[1], 2: files[2]}, nil)
	pid, err := g.box.Execute(&config.Config{}, args)
	if err != nil {
		return 0, fmt.Errorf("exec in sandbox: %w", startError(err))
	}
	return pid, nil
}

// end waits for a process's end and brings it about when ctx ends.
func (g *Guest) end(ctx context.Context, pid int32) (Exit, error) {
	type ended struct {
		status unix.WaitStatus
		err    error
	}
	done := make(chan ended, 1)
	go func() { // ends with the process, or with the sandbox
		status, err := g.box.WaitPID(g.id, pid)
		done <- ended{status, err}
	}()
	var cause error
	select {
	case end := <-done:
		return newExit(end.status), waitError(end.err)
	case <-ctx.Done():
		cause = context.Cause(ctx)
	}
	group := g.box.SignalProcessGroup(g.id, pid, unix.SIGKILL)
	process := g.box.SignalProcess(g.id, pid, unix.SIGKILL, false) // it may have left its group
	if group != nil && process != nil {
		cause = errors.Join(cause, process)
	}
	end := <-done
	return newExit(end.status), fmt.Errorf("exec in sandbox: %w", errors.Join(cause, waitError(end.err)))
}

func waitError(err error) error {
	if err != nil {
		return fmt.Errorf("wait for process in sandbox: %w", err)
	}
	return nil
}

func (g *Guest) execArgs(cfg ExecConfig) (*control.ExecArgs, error) {
	if len(cfg.Args) == 0 {
		return nil, errors.New(`args: "": name the program to run`)
	}
	task := g.spec.Process
	user := task.User
	if cfg.User != "" {
		var err error
		if user, err = resolveUser(cfg.User, accountsIn(g.spec.Annotations[rootfsAnnotation])); err != nil {
			return nil, err
		}
	}
	sets := capabilitySets(task.Capabilities.Bounding, user)
	capabilities, err := specutils.Capabilities(slices.Contains(sets.Bounding, capNetRaw), sets)
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	cwd := cfg.Cwd
	if cwd == "" {
		cwd = task.Cwd
	}
	return &control.ExecArgs{
		Argv:             cfg.Args,
		Envv:             slices.Concat(task.Env, cfg.Env),
		WorkingDirectory: cwd,
		KUID:             auth.KUID(user.UID),
		KGID:             auth.KGID(user.GID),
		ExtraKGIDs:       groups(user),
		NoNewPrivileges:  task.NoNewPrivileges,
		Capabilities:     capabilities,
		StdioIsPty:       cfg.Terminal != nil,
		ContainerID:      g.id,
	}, nil
}

func groups(user specs.User) []auth.KGID {
	list := make([]auth.KGID, len(user.AdditionalGids))
	for i, gid := range user.AdditionalGids {
		list[i] = auth.KGID(gid)
	}
	return list
}
