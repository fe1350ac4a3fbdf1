// Package handoff is the contract between the driver plugin and the supervisor that it starts for each allocation: the task
// file that the supervisor reads and the exit file that it leaves. Both sides may be replaced while the other runs, so the
// files are all they share.
package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Names of the files in a task's state directory, which belongs to root alone.
const (
	TaskFile = "task.json"
	ExitFile = "exit.json"
	// PIDFile holds the supervisor's pid and its start time from /proc, so that a reused pid is not taken for it.
	PIDFile = "pid.json"
	// LogFile is the supervisor's own log.
	LogFile = "worker.log"
)

// Task is everything a supervisor needs to know.
type Task struct {
	// ID is Nomad's task id: allocation, task name and a suffix for restarts.
	ID string `json:"id"`
	// Identity of the worker, as the guest sees it.
	Identity wire.Identity `json:"identity"`
	// Node is the Nomad node's name, for heartbeats.
	Node string `json:"node,omitempty"`
	// Config is the task's config with defaults set.
	Config spec.Config `json:"config"`
	// Args is the guest's command line; Args[0] is a path in the root file system.
	Args []string `json:"args"`
	// Env is the guest's environment.
	Env map[string]string `json:"env,omitempty"`
	// Rootfs is the guest's root on the host, shared read-only.
	Rootfs string `json:"rootfs"`
	// MemoryMB is what the task reserved.
	MemoryMB int64 `json:"memory_mb"`
	// StateDir is the task's own directory, for the files above and gVisor's state.
	StateDir string `json:"state_dir"`
	// Logs is where the guest's output goes.
	Logs Logs `json:"logs"`
	// NATS is how to reach the queue.
	NATS NATS `json:"nats"`
	// Runsc is the path of the pinned runsc binary, Platform its --platform, SharedDir what gVisor shares between the
	// node's sandboxes.
	Runsc     string `json:"runsc"`
	Platform  string `json:"platform,omitempty"`
	SharedDir string `json:"shared_dir"`
	// Snapshots is the node's snapshot store; nil when the task wants none.
	Snapshots *Snapshots `json:"snapshots,omitempty"`
	// Started is when Nomad asked for the task.
	Started time.Time `json:"started"`
}

// Logs says where the guest's output is written, the way Nomad names it, so that `nomad alloc logs` finds it:
// Dir/Task.stdout.0 and Dir/Task.stderr.0, with rising numbers after rotation.
type Logs struct {
	Dir       string `json:"dir"`
	Task      string `json:"task"`
	MaxFiles  int    `json:"max_files"`
	MaxSizeMB int    `json:"max_size_mb"`
}

// NATS is a server list and a user.
type NATS struct {
	URL      string `json:"url"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
}

// Snapshots is the node's snapshot store and this task's key in it.
type Snapshots struct {
	Dir      string `json:"dir"`
	MaxBytes int64  `json:"max_bytes"`
	Key      string `json:"key"`
	// Inputs are what the key was made of, kept with the snapshot for people.
	Inputs json.RawMessage `json:"inputs"`
	// Share is how snapshots are exchanged with other nodes; nil when the operator gave no key.
	Share *Share `json:"share,omitempty"`
}

// Share is the cluster's store of snapshots.
type Share struct {
	// Blobs is the URL of its bucket, KeyFile the path of the keys that seal what is in it.
	Blobs   string `json:"blobs"`
	KeyFile string `json:"key_file"`
	// FetchTimeout bounds how long a start may fetch before it starts cold.
	FetchTimeout time.Duration `json:"fetch_timeout"`
	// MaxBytes and MaxAge bound what is kept there.
	MaxBytes int64         `json:"max_bytes"`
	MaxAge   time.Duration `json:"max_age"`
}

// Exit is how a supervisor ended.
type Exit struct {
	// Code is 0 after a drain, else the guest's exit code, or 1 when the worker itself gave up.
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

// ReadTask reads a task file.
func ReadTask(path string) (Task, error) {
	var task Task
	if err := readJSON(path, &task); err != nil {
		return Task{}, fmt.Errorf("read task: %w", err)
	}
	return task, nil
}

// Write writes the task file into its state directory and returns its path.
func (t Task) Write() (string, error) {
	path := filepath.Join(t.StateDir, TaskFile)
	if err := writeJSON(path, t); err != nil {
		return "", fmt.Errorf("write task: %w", err)
	}
	return path, nil
}

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
