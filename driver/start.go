package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// starter starts workers. What can be done once for all starts is done when it is made.
type starter struct {
	config Config
	images *image.Cache
	log    zerolog.Logger
	// runsc is the digest of the runsc binary and cpu that of the processor's features: both are in every snapshot's key.
	runsc string
	cpu   string
	// share is how workers exchange snapshots with other nodes; nil for not at all.
	share *handoff.Share
}

func newStarter(ctx context.Context, config Config, log zerolog.Logger) (*starter, error) {
	for _, path := range []struct{ field, value string }{{"data_dir", config.DataDir}, {"runsc", config.Runsc}, {"worker", config.Worker}} {
		if !filepath.IsAbs(path.value) {
			return nil, fmt.Errorf("plugin config %s: %q: use an absolute path", path.field, path.value)
		}
	}
	for _, dir := range []string{"tasks", "shared"} {
		if err := os.MkdirAll(filepath.Join(config.DataDir, dir), 0o711); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
	}
	var store *blobs.Store
	if config.Blobs != "" {
		var err error
		if store, err = blobs.Open(ctx, config.Blobs); err != nil {
			return nil, fmt.Errorf("plugin config blobs: %w", err)
		}
	}
	images, err := image.Open(filepath.Join(config.DataDir, "rootfs"), store)
	if err != nil {
		return nil, err
	}
	s := &starter{config: config, images: images, log: log}
	if s.runsc, err = fileDigest(config.Runsc); err != nil {
		return nil, fmt.Errorf("plugin config runsc: %w", err)
	}
	if s.cpu, err = snapshot.CPUDigest(); err != nil {
		return nil, err
	}
	if s.share, err = shareSnapshots(config); err != nil {
		return nil, err
	}
	if s.share == nil {
		log.Info().Msg("snapshots stay on this node: the plugin's config has no snapshots.key_file")
	}
	return s, nil
}

func fileDigest(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // read only
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// start starts the task's worker.
func (s *starter) start(ctx context.Context, cfg *drivers.TaskConfig) (*task, error) {
	began := time.Now()
	config, err := decodeTask(cfg, s.config)
	if err != nil {
		return nil, err
	}
	root, err := s.images.ForProgram(ctx, config.Code)
	if err != nil {
		return nil, err
	}
	work, err := s.describe(cfg, config, root, began)
	if err != nil {
		return nil, err
	}
	if running, err := recoverTask(cfg, taskState{StateDir: work.StateDir, Started: began}, s.log); err == nil && running.process != nil {
		return running, nil // a plugin that died before it could say so started it, and Nomad asks again
	}
	if err := os.RemoveAll(work.StateDir); err != nil {
		return nil, fmt.Errorf("clear task directory: %w", err)
	}
	if err := os.MkdirAll(work.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make task directory: %w", err)
	}
	path, err := work.Write()
	if err != nil {
		return nil, err
	}
	started, err := s.spawn(cfg, work, path)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(work.StateDir))
	}
	s.log.Debug().Str("alloc", cfg.AllocID).Dur("took", time.Since(began)).Msg("started worker")
	return started, nil
}

// describe says everything about the task that its supervisor needs to know.
func (s *starter) describe(cfg *drivers.TaskConfig, config spec.Config, root image.Root, began time.Time) (handoff.Task, error) {
	app, function, _ := strings.Cut(cfg.JobName, ".")
	env := guestEnv(cfg.Env)
	work := handoff.Task{
		ID: cfg.ID,
		Identity: wire.Identity{
			Namespace: cfg.Namespace, App: app, Function: function, Version: root.Digest[:12], Alloc: cfg.AllocID,
		},
		Node: cfg.NodeName, Config: config,
		Args: append([]string{image.Program}, config.Args...), Env: env,
		Rootfs: root.Dir, MemoryMB: memoryMB(cfg),
		StateDir: filepath.Join(s.config.DataDir, "tasks", dirName(cfg)),
		Logs: handoff.Logs{
			Dir: filepath.Join(cfg.AllocDir, "alloc", "logs"), Task: cfg.Name, MaxFiles: 5, MaxSizeMB: 5,
		},
		NATS:  handoff.NATS{URL: s.config.NATS.URL, User: s.config.NATS.User, Password: s.config.NATS.Password},
		Runsc: s.config.Runsc, Platform: s.config.Platform, SharedDir: filepath.Join(s.config.DataDir, "shared"),
		Started: began,
	}
	if config.Snapshot.Enabled {
		inputs := s.inputs(work, root)
		key, err := inputs.Key()
		if err != nil {
			return work, err
		}
		kept, err := json.Marshal(inputs)
		if err != nil {
			return work, fmt.Errorf("encode snapshot inputs: %w", err)
		}
		work.Snapshots = &handoff.Snapshots{
			Dir: filepath.Join(s.config.DataDir, "snapshots"), MaxBytes: s.config.Snapshots.MaxBytes, Key: key, Inputs: kept, Share: s.share,
		}
	}
	return work, nil
}

func (s *starter) inputs(work handoff.Task, root image.Root) snapshot.Inputs {
	inputs := snapshot.Inputs{
		Namespace: work.Identity.Namespace, App: work.Identity.App, Function: work.Identity.Function,
		Code: root.Digest, Args: work.Args, Env: work.Env,
		Handler: work.Config.Handler.Type, Entry: work.Config.Handler.Entry, Concurrency: work.Config.Concurrency,
		Mounts: work.Config.Mounts, MemoryMB: work.MemoryMB,
		Runsc: s.runsc, Platform: s.config.Platform, CPU: s.cpu, Protocol: wire.Version,
	}
	for _, mount := range work.Config.Mounts {
		if info, err := os.Stat(mount.Source); err == nil { // a missing source fails the start itself
			inputs.MountTimes = append(inputs.MountTimes, info.ModTime().UnixNano())
		}
	}
	return inputs
}

// dirName is the task's own directory: restarts of one allocation get one each.
func dirName(cfg *drivers.TaskConfig) string { return strings.ReplaceAll(cfg.ID, "/", "-") }

func memoryMB(cfg *drivers.TaskConfig) int64 {
	if cfg.Resources == nil || cfg.Resources.NomadResources == nil {
		return 0
	}
	return cfg.Resources.NomadResources.Memory.MemoryMB
}

// guestEnv is the job's own environment and what makes an SDK's program serve. Nomad's variables name the allocation: a
// guest that saw them would freeze them into a snapshot that others thaw.
func guestEnv(all map[string]string) map[string]string {
	env := map[string]string{"FRESHET_GUEST": "1"}
	for name, value := range all {
		if !strings.HasPrefix(name, "NOMAD_") {
			env[name] = value
		}
	}
	return env
}

// spawn starts the supervisor in a session of its own, so that nothing that ends the plugin ends it.
func (s *starter) spawn(cfg *drivers.TaskConfig, work handoff.Task, path string) (*task, error) {
	out, err := os.OpenFile(filepath.Join(work.StateDir, handoff.LogFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open worker log: %w", err)
	}
	defer func() { _ = out.Close() }() // the worker has its own descriptor
	cmd := exec.Command(s.config.Worker, path)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	if err := handoff.WritePID(work.StateDir, cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	process, err := handoff.FindProcess(work.StateDir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch worker: %w", err), cmd.Process.Kill(), cmd.Wait())
	}
	return &task{
		config: cfg, state: taskState{StateDir: work.StateDir, Started: work.Started}, process: process, log: s.log,
		reap:  func() { _ = cmd.Wait() }, // how it ended is in its exit file
		ended: make(chan struct{}),
	}, nil
}
