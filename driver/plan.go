package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/network"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/secrets"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// plan is what a task takes to run: what its supervisor is told, and what the node must lend it.
type plan struct {
	config spec.Config
	// task is what tasks of this kind have in common; finish makes it one allocation's.
	task handoff.Task
	// image is what the root is made of, where it is one.
	image  *image.Image
	limits cgroup.Limits
	// cpuset is the directory of a control group of Nomad's whose processors the task runs on.
	cpuset string
	reach  reach
	// secrets are those whose values the guest sees, revealed the variables of its environment that have them.
	secrets  []secrets.Secret
	revealed map[string]bool
	// volumes names the volumes by the targets of their mounts.
	volumes map[string]string
	// own says that something of the allocation is in task already, so that nothing made ahead fits.
	own bool
}

// plan works out what the task takes. The image is held for the id.
func (s *starter) plan(ctx context.Context, id string, cfg *drivers.TaskConfig, config spec.Config, tell func(string)) (p plan, err error) {
	if config.Build != nil {
		return s.planBuild(cfg, config)
	}
	p.config = config
	pulled, err := s.pull(ctx, id, cfg, config, tell)
	if err != nil {
		return p, err
	}
	p.image = pulled
	code, err := s.code(ctx, config)
	if err != nil {
		return p, err
	}
	if p.reach, err = reachOf(cfg, config, s.config.AllowHostNetwork); err != nil {
		return p, err
	}
	p.own = p.reach.own()
	app, function, _ := strings.Cut(cfg.JobName, ".")
	p.task = handoff.Task{
		Identity: wire.Identity{Namespace: cfg.Namespace, App: app, Function: function, Version: version(code, pulled)},
		Warm:     cfg.JobID == cfg.JobName+spec.WarmSuffix,
		Node:     cfg.NodeName, Config: config, MemoryMB: memoryMB(cfg),
		Blobs: s.config.Blobs,
		NATS:  handoff.NATS{URL: s.config.NATS.URL, User: s.config.NATS.User, Password: s.config.NATS.Password},
		Runsc: s.config.Runsc, Platform: s.config.Platform, SharedDir: filepath.Join(s.config.DataDir, sharedDir),
	}
	if g := s.config.Gateway; g.URL != "" {
		p.task.Gateway = &handoff.Gateway{URL: g.URL, Token: g.Token}
	}
	if p.task.Program, err = s.program(cfg, config, pulled); err != nil {
		return p, err
	}
	if p.secrets, err = s.secretsOf(ctx, cfg, config); err != nil {
		return p, err
	}
	p.revealed = reveal(p.task.Program.Env, cfg.Env, p.secrets)
	p.task.Network, p.task.Files = p.reach.network, p.reach.files
	p.task.Root = rootOf(config, pulled, code)
	if err := s.mounts(&p, cfg, code); err != nil {
		return p, err
	}
	p.limits, p.cpuset = s.limitsOf(cfg, config)
	if config.Handler == nil { // it is the allocation's own: a frozen guest would take it to another
		p.task.Group = seenGroup(cfg, config, p.limits, s.config)
	}
	if config.Snapshot.Enabled && config.Handler != nil {
		p.task.Snapshots, err = s.snapshotOf(p, cfg, code)
	}
	return p, err
}

// version tells deploys of a function apart in events and heartbeats.
func version(code image.Root, pulled *image.Image) string {
	switch {
	case code.Digest != "":
		return code.Digest[:12]
	case pulled != nil:
		return pulled.Content[:12]
	}
	return ""
}

// code makes the root of the task's own program, where it has one; of Python modules, the folder that holds them.
func (s *starter) code(ctx context.Context, config spec.Config) (image.Root, error) {
	switch {
	case config.Code == "":
		return image.Root{}, nil
	case isPython(config):
		return s.programs.ForBundle(ctx, config.Code)
	}
	return s.programs.ForProgram(ctx, config.Code)
}

func isPython(config spec.Config) bool {
	return config.Handler != nil && config.Handler.Type == spec.HandlerPython
}

// rootOf is the root file system: the image's, else the code's own.
func rootOf(config spec.Config, pulled *image.Image, code image.Root) handoff.Root {
	root := handoff.Root{Dir: code.Dir, Readonly: config.ReadonlyRootfs}
	if pulled != nil {
		root.Dir = pulled.Root
	}
	if w := config.Writable; w != nil {
		root.WritesBytes = int64(w.SizeMB) << 20
	}
	if onDisk(config) && root.WritesBytes == 0 {
		root.WritesBytes = defaultDiskMB << 20
	}
	return root
}

// defaultDiskMB bounds what a task writes to its root on the node's disk.
const defaultDiskMB = 1024

// onDisk tells whether writes to the root go to the node's disk.
func onDisk(config spec.Config) bool {
	if config.ReadonlyRootfs {
		return false
	}
	if config.Writable == nil || config.Writable.Medium == "" {
		return config.Handler == nil
	}
	return config.Writable.Medium == spec.MediumDisk
}

// finish makes the plan's task that of one allocation, and ends the plugin's part of the start.
func finish(task handoff.Task, cfg *drivers.TaskConfig, times *steps) handoff.Task {
	task.ID, task.Identity.Alloc = cfg.ID, cfg.AllocID
	task.Started, task.Handed, task.Steps = times.began, times.last, times.ms
	task.Logs = handoff.Logs{
		Dir: cfg.TaskDir().LogDir, Task: cfg.Name, MaxFiles: 10, MaxSizeMB: 10, // Nomad's own defaults
		Stdout: fifo(cfg.StdoutPath), Stderr: fifo(cfg.StderrPath),
	}
	return task
}

// key names everything that a supervisor made ahead must have in common with the task; empty when nothing fits.
func (p plan) key() (string, error) {
	if p.config.Handler == nil || p.own {
		return "", nil
	}
	data, err := json.Marshal(struct {
		Task   handoff.Task
		Limits cgroup.Limits
		Policy *network.Policy
	}{p.task, p.limits, p.reach.policy})
	if err != nil {
		return "", fmt.Errorf("encode task: %w", err)
	}
	return digest(data), nil
}

// steps measures where the time of a start goes; what the supervisor does comes after it.
type steps struct {
	began, last time.Time
	ms          map[string]float64
}

func newSteps() *steps {
	now := time.Now()
	return &steps{began: now, last: now, ms: make(map[string]float64)}
}

// end ends the step that began with the end of the one before.
func (s *steps) end(name string) {
	now := time.Now()
	s.ms[name] = float64(now.Sub(s.last).Microseconds()) / 1000
	s.last = now
}
