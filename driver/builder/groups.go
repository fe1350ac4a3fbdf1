package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/driver/image/build"
	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// errMemory ends a build whose steps need more memory than the task has.
var errMemory = errors.New("out of memory")

// groups are the task's control groups: one for the sandboxes, with the task's limits, and one for this process.
type groups struct {
	guest    *cgroup.Group
	memoryMB int64
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// openGroups moves this process, which the driver started in the sandboxes' group, to its own, and begins to watch for want of memory.
func openGroups(ctx context.Context, task handoff.Task) (*groups, error) {
	manager, err := cgroup.Open(cgroup.Config{Parent: task.Cgroups.Parent, Root: task.Cgroups.Root})
	if err != nil {
		return nil, err
	}
	g := &groups{memoryMB: task.MemoryMB}
	if g.guest, err = manager.Load(task.Cgroups.Guest); err != nil {
		return nil, err
	}
	own, err := manager.Load(task.Cgroups.Supervisor)
	if err != nil {
		return nil, err
	}
	if err := own.Add(os.Getpid()); err != nil {
		return nil, err
	}
	ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	g.running.Go(func() { g.watch(ctx) })
	return g, nil
}

// watch ends what is left of sandboxes of which the kernel killed a part.
func (g *groups) watch(ctx context.Context) {
	if _, err := g.guest.WaitOOM(ctx, 0); err == nil {
		_ = g.guest.Kill(ctx) // the driver kills what is left when the task has ended
	}
}

// enter runs what starts a sandbox in its group.
func (g *groups) enter(start func() error) error { return g.guest.Enter(start) }

// memory is the error of steps that needed too much memory, if any did.
func (g *groups) memory() error {
	if kills, err := g.guest.OOMKills(); err != nil || kills == 0 {
		return nil //nolint:nilerr // the step's own error says what is known then
	}
	return fmt.Errorf("the step needed more memory than the task's %d MB and was killed: %w", g.memoryMB, errMemory)
}

func (g *groups) close() {
	g.cancel()
	g.running.Wait()
}

// watched says of steps that were killed for want of memory that they were.
type watched struct {
	build.Runner
	groups *groups
}

// Run implements build.Runner.
func (w *watched) Run(ctx context.Context, step build.Step) (sandbox.Exit, error) {
	exit, err := w.Runner.Run(ctx, step)
	if err == nil && exit == (sandbox.Exit{}) {
		return exit, nil
	}
	if memory := w.groups.memory(); memory != nil {
		return sandbox.Exit{}, memory
	}
	return exit, err
}
