package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/ahead"
	"github.com/freshet-dev/freshet/driver/buildcache"
	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/python"
)

// The directories below the data directory that hold units, by what they are for.
const (
	tasksDir = "tasks"
	aheadDir = "ahead"
	// sharedDir is gVisor's, for what all sandboxes have in common.
	sharedDir = "shared"
)

// starter starts tasks. What can be done once for all starts is done when it is made.
type starter struct {
	// ctx is the plugin's life.
	ctx context.Context
	*lender
	programs *image.Cache
	// python is the folder of the python handler's runtime.
	python string
	ahead  *ahead.Pool
	// runsc is the digest of the runsc binary and cpu that of the processor's features: both are in every snapshot's key.
	runsc  string
	cpu    string
	upkeep *upkeep
	// share is how workers exchange snapshots with other nodes; nil for not at all.
	share *handoff.Share
}

// newStarter makes it; claimed tells whether Nomad knows the task of a directory. Close it.
func newStarter(ctx context.Context, config Config, claimed func(dir string) bool, log zerolog.Logger) (*starter, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{tasksDir, aheadDir, sharedDir} {
		if err := os.MkdirAll(filepath.Join(config.DataDir, dir), 0o711); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
	}
	if err := succeed(ctx, config.DataDir); err != nil {
		return nil, err
	}
	s := &starter{ctx: ctx}
	if s.python, err = python.Install(filepath.Join(config.DataDir, "python")); err != nil {
		return nil, err
	}
	if s.lender, err = openLender(ctx, config, log); err != nil {
		return nil, err
	}
	if s.programs, err = image.Open(filepath.Join(config.DataDir, "rootfs"), s.blobs); err != nil {
		return nil, err
	}
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
	if err := s.sweep(ctx); err != nil {
		return nil, err
	}
	idle, err := duration("ahead.idle", config.Ahead.Idle)
	if err != nil {
		return nil, err
	}
	chores, err := s.chores(claimed)
	if err != nil {
		return nil, err
	}
	s.ahead = ahead.Open(ctx, ahead.Config{Memory: config.Ahead.MemoryMB << 20, Empty: config.Ahead.Empty, Idle: idle}, log)
	s.upkeep = openUpkeep(ctx, chores, log)
	return s, nil
}

// upkeepEvery is how often the node is put in order.
const upkeepEvery = time.Minute

// chores are what keeps the node in order.
func (s *starter) chores(claimed func(dir string) bool) ([]chore, error) {
	grace, err := duration("orphan_grace", s.config.OrphanGrace)
	if err != nil {
		return nil, err
	}
	snapshots, err := snapshot.Open(filepath.Join(s.config.DataDir, "snapshots"), s.config.Snapshots.MaxBytes)
	if err != nil {
		return nil, err
	}
	builds := buildcache.Cache{Dir: filepath.Join(s.config.DataDir, buildsDir), MaxBytes: s.config.Builds.MaxBytes}
	if builds.MaxAge, err = duration("builds.max_age", s.config.Builds.MaxAge); err != nil {
		return nil, err
	}
	orphans := &orphans{
		grace: grace, list: func() []string { return s.list(tasksDir) }, claimed: claimed,
		drain: drainTask, remove: s.clear, running: running, log: s.log,
	}
	return []chore{
		{"images", upkeepEvery, s.images.Collect},
		{"builds", upkeepEvery, func(context.Context) error { return builds.Collect(time.Now()) }},
		{"networks", upkeepEvery, s.sweepNetworks},
		{"snapshots", upkeepEvery, snapshots.Collect},
		{"orphans", min(upkeepEvery, grace), func(ctx context.Context) error { return orphans.look(ctx, time.Now()) }},
	}, nil
}

// close lets go of what the node lends; tasks keep theirs.
func (s *starter) close() error {
	s.upkeep.close()
	s.ahead.Close()
	return s.lender.close()
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

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// start starts the task; tell is for what people may want to read meanwhile.
func (s *starter) start(ctx context.Context, cfg *drivers.TaskConfig, tell func(string)) (*task, *drivers.DriverNetwork, error) {
	times := newSteps()
	config, err := decodeTask(cfg, s.config)
	if err != nil {
		return nil, nil, err
	}
	dir := s.dir(cfg)
	if running, err := recoverTask(cfg, taskState{StateDir: dir, Started: times.began, Plain: config.Handler == nil}, s); err == nil && running.process != nil {
		return running, nil, nil // a plugin that died before it could say so started it, and Nomad asks again
	}
	if err := s.clear(ctx, dir); err != nil {
		return nil, nil, err
	}
	times.end("config")
	p, err := s.plan(ctx, filepath.Base(dir), cfg, config, tell)
	if err != nil {
		return nil, nil, errors.Join(err, s.images.Release(filepath.Base(dir)))
	}
	times.end("plan")
	started, err := s.run(ctx, cfg, p, dir, times)
	if err != nil {
		return nil, nil, err
	}
	s.log.Debug().Str("alloc", cfg.AllocID).Dur("took", time.Since(times.began)).Msg("started task")
	net, err := s.networkOf(started, p)
	if err != nil { // nobody would know of it
		return nil, nil, errors.Join(err, started.signalSupervisor(unix.SIGKILL), s.clear(ctx, dir))
	}
	return started, net, nil
}

// run takes a supervisor made ahead where one fits, else starts one, and has the next one made.
func (s *starter) run(ctx context.Context, cfg *drivers.TaskConfig, p plan, dir string, times *steps) (*task, error) {
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	if key != "" {
		defer s.ahead.Want(key, func(ctx context.Context, empty bool) (ahead.Member, error) {
			return s.prepare(ctx, p, empty)
		})
		if member, ok := s.ahead.Take(key).(*member); ok {
			started, err := s.adopt(member, cfg, p, dir, times)
			if err == nil {
				if err := s.images.Release(filepath.Base(dir)); err != nil { // the member holds it; a sweep lets go of this hold
					s.log.Warn().Err(err).Str("alloc", cfg.AllocID).Msg("release image")
				}
				return started, nil
			}
			s.log.Warn().Err(err).Str("alloc", cfg.AllocID).Msg("adopt a supervisor made ahead; starting one")
			member.Drop()
		}
	}
	work, err := s.lend(ctx, dir, p)
	if err != nil {
		return nil, err
	}
	times.end("lend")
	started, err := s.spawn(cfg, finish(work, cfg, times))
	if err != nil {
		return nil, errors.Join(err, s.giveBack(ctx, dir))
	}
	return started, nil
}

// networkOf tells Nomad where the task is reached.
func (s *starter) networkOf(t *task, p plan) (*drivers.DriverNetwork, error) {
	if p.reach.policy == nil {
		return nil, nil
	}
	pool, err := s.networks.get(s.ctx)
	if err != nil {
		return nil, err
	}
	namespace, err := pool.Find(t.unit())
	if err != nil {
		return nil, err
	}
	net := &drivers.DriverNetwork{IP: namespace.Address.String(), PortMap: make(map[string]int)}
	for i, label := range p.config.Ports {
		net.PortMap[label] = int(p.reach.ports[2*i].Port) // one of TCP and one of UDP each
	}
	return net, nil
}

// dir is the task's own directory: restarts of one allocation get one each.
func (s *starter) dir(cfg *drivers.TaskConfig) string {
	return filepath.Join(s.config.DataDir, tasksDir, strings.ReplaceAll(cfg.ID, "/", "-"))
}
