package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// groups are the task's control groups. The driver starts the supervisor in the guest's: what it starts first, the sandbox, is then
// charged to that from its first page on, and costs no waiting. It moves to its own while the guest comes up, since a move waits for
// the kernel some 10 ms (docs/decisions/0018). Nil where the node has none.
type groups struct {
	guest, own *cgroup.Group
	log        zerolog.Logger
	cancel     context.CancelFunc
	running    sync.WaitGroup
	moving     sync.WaitGroup

	mu     sync.Mutex
	inside bool // in the guest's group still
}

// openGroups finds the groups and begins to watch for want of memory. Close them.
func openGroups(ctx context.Context, names *handoff.Cgroups, log zerolog.Logger) (*groups, error) {
	if names == nil {
		return nil, nil
	}
	manager, err := cgroup.Open(cgroup.Config{Parent: names.Parent, Root: names.Root})
	if err != nil {
		return nil, err
	}
	g := &groups{log: log, inside: true}
	if g.guest, err = manager.Load(names.Guest); err != nil {
		return nil, err
	}
	if g.own, err = manager.Load(names.Supervisor); err != nil {
		return nil, err
	}
	ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	g.running.Go(func() { g.watch(ctx) })
	return g, nil
}

// watch ends what is left of a sandbox of which the kernel killed a part.
func (g *groups) watch(ctx context.Context) {
	_, err := g.guest.WaitOOM(ctx, 0)
	g.moving.Wait() // this process must be out of the group
	if err == nil {
		err = g.guest.Kill(ctx)
	}
	if err != nil && ctx.Err() == nil {
		g.log.Warn().Err(err).Msg("watch for want of memory")
	}
}

// start runs what starts a sandbox, in the guest's group.
func (g *groups) start(create func() error) error {
	if g == nil {
		return create()
	}
	g.mu.Lock()
	first := g.inside
	g.inside = false
	g.mu.Unlock()
	if !first {
		g.moving.Wait()
		return g.guest.Enter(create)
	}
	err := create()
	g.moving.Go(g.move)
	return err
}

func (g *groups) move() {
	if err := g.own.Add(os.Getpid()); err != nil {
		g.log.Warn().Err(err).Msg("move to the supervisor's control group; the task pays for both")
	}
}

// close ends the watching.
func (g *groups) close() {
	if g == nil {
		return
	}
	g.cancel()
	g.running.Wait()
	g.moving.Wait()
}

// outOfMemory tells whether the kernel killed something of the sandbox because memory was short.
func (g *groups) outOfMemory() bool {
	if g == nil {
		return false
	}
	kills, err := g.guest.OOMKills()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		g.log.Warn().Err(err).Msg("look for kills for want of memory")
	}
	return kills > 0
}

// memoryReason tells a person why the kernel ended a guest.
func memoryReason(task handoff.Task) string {
	return fmt.Sprintf("the sandbox needed more memory than its %d MB and was killed", task.MemoryMB)
}
