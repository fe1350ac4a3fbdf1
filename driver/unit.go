package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/secrets"
)

// A unit is one supervisor with what the node lends it: a state directory, control groups, a network namespace, the hold of an
// image. All are named by the unit's id, the name of its directory, so that whoever finds one of them knows whose it is.

// lender lends to units what the node has.
type lender struct {
	config Config
	// blobs is the cluster's store; nil where the node has none.
	blobs    *blobs.Store
	images   *image.Store
	networks *networks
	groups   *cgroup.Manager
	// secrets is where secrets are read; nil where the node reads none.
	secrets *secrets.Store
	log     zerolog.Logger
	// lending is held for reading while a unit gets its directory and what goes with it, so that who holds it alone sees the
	// directories of all units that have something.
	lending sync.RWMutex
}

// openLender opens what the node has. Close it.
func openLender(ctx context.Context, config Config, log zerolog.Logger) (*lender, error) {
	l := &lender{config: config, log: log}
	var err error
	if l.secrets, err = config.Nomad.store(); err != nil {
		return nil, err
	}
	images, err := config.imageStore()
	if err != nil {
		return nil, err
	}
	pool, err := config.pool()
	if err != nil {
		return nil, err
	}
	l.networks = &networks{config: pool, log: log}
	if config.Blobs != "" {
		if l.blobs, err = blobs.Open(ctx, config.Blobs); err != nil {
			return nil, fmt.Errorf("plugin config blobs: %w", err)
		}
	}
	images.Blobs = l.blobs
	if l.images, err = image.OpenStore(images, log); err != nil {
		return nil, err
	}
	if l.groups, err = cgroup.Open(cgroup.Config{Parent: config.CgroupParent, Root: config.CgroupRoot}); err != nil {
		return nil, err
	}
	return l, l.networks.resume(ctx)
}

// close lets go of it; units keep theirs.
func (l *lender) close() error {
	l.images.Close()
	if l.blobs == nil {
		return l.networks.close()
	}
	return errors.Join(l.networks.close(), l.blobs.Close())
}

// endWait bounds how long what was killed may take to be gone.
const endWait = 10 * time.Second

// guestID and supervisorID name a unit's control groups.
func guestID(id string) string      { return id + ".guest" }
func supervisorID(id string) string { return id + ".supervisor" }

// lend makes the directory and takes what the plan needs from the node. What it took is given back when it fails.
func (l *lender) lend(ctx context.Context, dir string, p plan) (work handoff.Task, err error) {
	id := filepath.Base(dir)
	work = p.task
	work.StateDir = dir
	defer func() {
		if err != nil {
			err = errors.Join(err, l.giveBack(context.WithoutCancel(ctx), dir))
		}
	}()
	l.lending.RLock()
	defer l.lending.RUnlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return work, fmt.Errorf("make task directory: %w", err)
	}
	if onDisk(p.config) {
		work.Root.WritesDir = filepath.Join(dir, "writes")
		if err := os.Mkdir(work.Root.WritesDir, 0o700); err != nil {
			return work, fmt.Errorf("make task directory: %w", err)
		}
	}
	if work.Cgroups, err = l.limit(id, p); err != nil {
		return work, err
	}
	if p.reach.policy != nil {
		return work, l.connect(ctx, id, p, &work)
	}
	return work, nil
}

// limit makes the unit's control groups.
func (l *lender) limit(id string, p plan) (*handoff.Cgroups, error) {
	guest, err := l.groups.Create(guestID(id), p.limits)
	if err != nil {
		return nil, err
	}
	if p.cpuset != "" {
		if err := guest.UseCPUs(p.cpuset); err != nil {
			return nil, err
		}
	}
	if _, err := l.groups.Create(supervisorID(id), cgroup.Limits{CPUShares: p.limits.CPUShares}); err != nil {
		return nil, err
	}
	return &handoff.Cgroups{Root: l.config.CgroupRoot, Parent: l.config.CgroupParent, Guest: guestID(id), Supervisor: supervisorID(id)}, nil
}

// connect gives the unit a network namespace, with the ports that lead to it.
func (l *lender) connect(ctx context.Context, id string, p plan, work *handoff.Task) error {
	pool, err := l.networks.get(ctx)
	if err != nil {
		return err
	}
	namespace, err := pool.Take(ctx, id, *p.reach.policy)
	if err != nil {
		return err
	}
	work.Network.Namespace = namespace.Path
	work.Files = p.reach.etc(p.task.Program.Hostname, namespace.Resolvers)
	if len(p.reach.ports) > 0 {
		return pool.Publish(id, p.reach.ports)
	}
	return nil
}

// giveBack ends what is left of a unit and gives back all that it was lent. Doing it again does no harm.
func (l *lender) giveBack(ctx context.Context, dir string) error {
	id := filepath.Base(dir)
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	err := errors.Join(l.dissolve(ctx, guestID(id)), l.dissolve(ctx, supervisorID(id)), l.images.Release(id))
	if pool := l.networks.opened(); pool != nil {
		err = errors.Join(err, pool.Release(id))
	}
	err = errors.Join(err, discard(dir))
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("clear up after task %s: %w", id, err)
	}
	return nil
}

// discard unmounts what a supervisor that was killed left mounted for its sandboxes.
func discard(dir string) error {
	steps, err := filepath.Glob(filepath.Join(dir, handoff.BuildDir, "*", handoff.SandboxDir))
	for _, sandboxDir := range append(steps, filepath.Join(dir, handoff.SandboxDir)) {
		err = errors.Join(err, sandbox.Discard(sandboxDir))
	}
	return err
}

// dissolve kills what is in a control group and removes it.
func (l *lender) dissolve(ctx context.Context, id string) error {
	group, err := l.groups.Load(id)
	if errors.Is(err, cgroup.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := group.Kill(ctx); err != nil {
		return err
	}
	return group.Remove(ctx)
}
