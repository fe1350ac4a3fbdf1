package driver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// launch starts a supervisor in a session of its own, so that nothing that ends the plugin ends it. reap waits for its end.
func (s *starter) launch(work handoff.Task, extra *os.File, args ...string) (process *handoff.Process, reap func(), err error) {
	out, err := os.OpenFile(filepath.Join(work.StateDir, handoff.LogFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open supervisor's log: %w", err)
	}
	defer func() { _ = out.Close() }() // the supervisor has its own descriptor
	program := s.config.Worker
	if work.Build != nil {
		program = s.config.Builder
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if extra != nil {
		cmd.ExtraFiles = []*os.File{extra}
	}
	group, err := s.groups.Load(work.Cgroups.Guest) // its sandbox is to be charged there; it leaves by itself
	if err != nil {
		return nil, nil, err
	}
	if err := group.Start(cmd); err != nil {
		return nil, nil, fmt.Errorf("start supervisor: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, cmd.Process.Kill())
			_ = cmd.Wait() // it was killed
		}
	}()
	if err := handoff.WritePID(work.StateDir, cmd.Process.Pid); err != nil {
		return nil, nil, err
	}
	if process, err = handoff.OpenProcess(cmd.Process.Pid); err != nil {
		return nil, nil, fmt.Errorf("watch supervisor: %w", err)
	}
	return process, func() { _ = cmd.Wait() }, nil // how it ended is in its exit file
}

// spawn starts the task's own supervisor.
func (s *starter) spawn(cfg *drivers.TaskConfig, work handoff.Task) (*task, error) {
	path, err := work.Write()
	if err != nil {
		return nil, err
	}
	process, reap, err := s.launch(work, nil, path)
	if err != nil {
		return nil, err
	}
	return newTask(cfg, taskState{StateDir: work.StateDir, Started: work.Started, Plain: work.Config.Handler == nil}, s, process, reap), nil
}
