package handoff

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
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
	// Program is what runs, Root what it runs in, Mounts what it sees beside that.
	Program Program `json:"program"`
	Root    Root    `json:"root"`
	Mounts  []Mount `json:"mounts,omitempty"`
	Files   []File  `json:"files,omitempty"`
	// Build is what a task needs that builds an image; nil for others.
	Build *Build `json:"build,omitempty"`
	// Network is what it reaches.
	Network Network `json:"network"`
	// Cgroups hold the processes; nil on a node without.
	Cgroups *Cgroups `json:"cgroups,omitempty"`
	// Group is the control group that the guest sees itself in; nil for none.
	Group *Group `json:"group,omitempty"`
	// MemoryMB is what the task reserved.
	MemoryMB int64 `json:"memory_mb"`
	// StateDir is the task's own directory, for the files above and gVisor's state. Link is where others look for it when it was
	// made ahead; it leads there.
	StateDir string `json:"state_dir"`
	Link     string `json:"link,omitempty"`
	// Blobs is the URL of the cluster's blob store, where large inputs and outputs of calls are; empty on a node without.
	Blobs string `json:"blobs,omitempty"`
	// Logs is where the guest's output goes.
	Logs Logs `json:"logs"`
	// NATS is how to reach the queue.
	NATS NATS `json:"nats"`
	// Gateway takes the calls that the guest makes; nil where it may make none.
	Gateway *Gateway `json:"gateway,omitempty"`
	// Runsc is the path of the pinned runsc binary, Platform its --platform, SharedDir what gVisor shares between the
	// node's sandboxes.
	Runsc     string `json:"runsc"`
	Platform  string `json:"platform,omitempty"`
	SharedDir string `json:"shared_dir"`
	// Snapshots is the node's snapshot store; nil when the task wants none.
	Snapshots *Snapshots `json:"snapshots,omitempty"`
	// Warm wants a worker that ends once its guest is ready and frozen, and takes no calls.
	Warm bool `json:"warm,omitempty"`
	// Empty, in a template, wants the sandbox left empty although there is a snapshot.
	Empty bool `json:"empty,omitempty"`
	// Started is when Nomad asked for the task, Handed when the plugin gave it on; Steps say in ms where the time between went.
	Started time.Time          `json:"started"`
	Handed  time.Time          `json:"handed"`
	Steps   map[string]float64 `json:"steps,omitempty"`
}

// Program is the guest's first process.
type Program struct {
	// Args is the command line; Args[0] is a path in the root, or a name on the environment's PATH.
	Args []string          `json:"args"`
	Env  map[string]string `json:"env,omitempty"`
	// User is "name", "uid", "uid:gid" or "name:group" of the root; empty is root.
	User string `json:"user,omitempty"`
	// Dir is where it starts; empty is "/".
	Dir string `json:"dir,omitempty"`
	TTY bool   `json:"tty,omitempty"`
	// Capabilities are what it holds, as "CAP_NET_RAW".
	Capabilities []string `json:"capabilities,omitempty"`
	// NewPrivileges lets setuid programs raise its privileges.
	NewPrivileges bool `json:"new_privileges,omitempty"`
	// Limits are resource limits, such as "nofile".
	Limits   []Limit `json:"limits,omitempty"`
	Hostname string  `json:"hostname,omitempty"`
}

// Build is what the node has for a build, beside what the task's config says of it.
type Build struct {
	// Dir is where the node keeps what builds made and share; Images is the configuration of its images, as package image has it.
	Dir    string          `json:"dir"`
	Images json.RawMessage `json:"images"`
	// Context is a folder on the node, "sha256:<hex>" for a tar in the blob store, or empty.
	Context string `json:"context,omitempty"`
	// HostPaths lets base images be files of the node.
	HostPaths bool `json:"host_paths,omitempty"`
	// Secrets are what steps may be shown, by id.
	Secrets map[string][]byte `json:"secrets,omitempty"`
	// Init is the path of freshet-init.
	Init string `json:"init"`
	// Env and Files are the operator's word on package sources, for each step.
	Env   map[string]string `json:"env,omitempty"`
	Files []File            `json:"files,omitempty"`
}

// Limit is a resource limit by its name in getrlimit(2), in lower case.
type Limit struct {
	Name string `json:"name"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Root is a root file system.
type Root struct {
	// Dir is the root on the host, shared read-only.
	Dir string `json:"dir"`
	// Readonly refuses writes; else they go to memory, or to a file in WritesDir, at most WritesBytes of them (0 is no bound).
	Readonly    bool   `json:"readonly,omitempty"`
	WritesDir   string `json:"writes_dir,omitempty"`
	WritesBytes int64  `json:"writes_bytes,omitempty"`
}

// Mount is a directory or file that the guest sees.
type Mount struct {
	// Source is a path on the host; empty makes it a tmpfs of at most Bytes.
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"`
	Readonly bool   `json:"readonly,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
}

// File is a small file of the guest's own, such as /etc/hosts.
type File struct {
	Target  string `json:"target"`
	Content string `json:"content"`
}

// Network is what the guest reaches: nothing but itself where Kind is empty, else one of package sandbox's kinds, with the path of the
// network namespace that it joins where it has one.
type Network struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// Cgroups are the control groups of a task, by the ids that package cgroup knows them by.
type Cgroups struct {
	// Root is where control groups are mounted, Parent the group that holds them all.
	Root   string `json:"root,omitempty"`
	Parent string `json:"parent"`
	// Guest holds sentry and gofer with the task's limits, Supervisor the rest.
	Guest      string `json:"guest"`
	Supervisor string `json:"supervisor"`
}

// Group is a control group of version 2 as the guest sees it: its name, and what its files say, such as "memory.max".
type Group struct {
	Name   string            `json:"name"`
	Values map[string]string `json:"values"`
}

// Logs says where the guest's output is written, the way Nomad names it, so that `nomad alloc logs` finds it:
// Dir/Task.stdout.0 and Dir/Task.stderr.0, with rising numbers after rotation.
type Logs struct {
	Dir       string `json:"dir"`
	Task      string `json:"task"`
	MaxFiles  int    `json:"max_files"`
	MaxSizeMB int    `json:"max_size_mb"`
	// Stdout and Stderr are the pipes of Nomad's own collector, where the job did not disable it; it then writes the files.
	Stdout string `json:"stdout,omitempty"`
	Stderr string `json:"stderr,omitempty"`
}

// NATS is a server list and a user.
type NATS struct {
	URL      string `json:"url"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
}

// Gateway is where the guest's own calls go, and what is shown there.
type Gateway struct {
	URL   string `json:"url"`
	Token string `json:"token,omitempty"`
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
