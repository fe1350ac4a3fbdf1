// Package handoff is the contract between the driver plugin and the supervisor that it starts for each allocation: the task
// file that the supervisor reads and the exit file that it leaves. Both sides may be replaced while the other runs, so these
// files are all that a task depends on; the control socket serves questions that only a running supervisor can answer.
package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Names of the files in a task's state directory, which belongs to root alone.
const (
	TaskFile = "task.json"
	ExitFile = "exit.json"
	// SandboxDir is the directory of gVisor's own files.
	SandboxDir = "gvisor"
	// BuildDir holds a directory for each step of a build, with a SandboxDir in it.
	BuildDir = "build"
	// PIDFile holds the supervisor's pid and its start time from /proc, so that a reused pid is not taken for it.
	PIDFile = "pid.json"
	// LogFile is the supervisor's own log.
	LogFile = "worker.log"
	// ControlFile is the socket that a running supervisor listens on.
	ControlFile = "control.sock"
)

// Exit is how a supervisor ended.
type Exit struct {
	// Code is 0 after a drain, else the guest's exit code, or 1 when the worker itself gave up. A signal that kills the guest is
	// 128 and its number too.
	Code int `json:"code"`
	// Signal that killed the guest, or 0.
	Signal int `json:"signal,omitempty"`
	// OOM says that the guest used more memory than it reserved.
	OOM bool `json:"oom,omitempty"`
	// Reason is for people: it becomes a Nomad task event.
	Reason string    `json:"reason,omitempty"`
	Time   time.Time `json:"time"`
}

// ErrNoExit says that there is no exit file: the supervisor runs, or was killed.
var ErrNoExit = errors.New("no exit status")

// ReadExit reads how the supervisor with this state directory ended; ErrNoExit when it has not said.
func ReadExit(stateDir string) (Exit, error) {
	var exit Exit
	err := readJSON(filepath.Join(stateDir, ExitFile), &exit)
	if errors.Is(err, os.ErrNotExist) {
		return Exit{}, ErrNoExit
	}
	if err != nil {
		return Exit{}, fmt.Errorf("read exit status: %w", err)
	}
	return exit, nil
}

// Write leaves the exit file in the state directory.
func (e Exit) Write(stateDir string) error {
	if err := writeJSON(filepath.Join(stateDir, ExitFile), e); err != nil {
		return fmt.Errorf("write exit status: %w", err)
	}
	return nil
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeJSON replaces the file at once: a reader sees the old or the new one, never half of it.
func writeJSON(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	partial, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".") // plugin and supervisor may both write it
	if err != nil {
		return err
	}
	_, err = partial.Write(data)
	if err = errors.Join(err, partial.Close()); err == nil {
		err = os.Rename(partial.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(partial.Name()))
	}
	return nil
}
