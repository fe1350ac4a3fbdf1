package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Ahead is a sandbox made before there is a task for it: empty, or a standby, thawed from the function's snapshot up to the point
// where a copy is told who it is. A nil one holds nothing.
type Ahead struct {
	box     *sandbox.Sandbox
	groups  *groups
	standby bool
	// damage is what the store found wrong with the snapshot, which it has put out of use: the task that comes tells people.
	damage   error
	watching sync.WaitGroup
}

// Prepare makes the sandbox for tasks like the template, and thaws it where there is a snapshot. A snapshot that does not thaw
// leaves an empty sandbox: it is the next start's to find out why.
func Prepare(ctx context.Context, template handoff.Task, log zerolog.Logger) (*Ahead, error) {
	groups, err := openGroups(ctx, template.Cgroups, log)
	if err != nil {
		return nil, err
	}
	a := &Ahead{groups: groups}
	if err := a.prepare(ctx, template, log); err != nil {
		groups.close()
		return nil, err
	}
	return a, nil
}

func (a *Ahead) prepare(ctx context.Context, template handoff.Task, log zerolog.Logger) (err error) {
	box, err := createSandbox(template, a.groups, "ahead", log)
	if err != nil {
		return err
	}
	a.box = box
	thawed, err := a.thaw(ctx, template)
	if err == nil {
		a.standby = thawed
		return nil
	}
	log.Warn().Err(err).Msg("thaw ahead; holding an empty sandbox")
	if err := box.Destroy(); err != nil {
		return err
	}
	closeStreams(box)
	a.box, err = createSandbox(template, a.groups, "empty", log)
	return err
}

func (a *Ahead) thaw(ctx context.Context, template handoff.Task) (bool, error) {
	store, err := openStore(template)
	if store == nil || err != nil || template.Empty {
		return false, err
	}
	use, err := store.Lookup(ctx, template.Snapshots.Key)
	if errors.Is(err, snapshot.ErrDamaged) {
		a.damage = err
	}
	if err != nil {
		return false, nil //nolint:nilerr // there is none: an empty sandbox it is
	}
	defer use.Release()
	check := use.Verify(ctx)
	if err := errors.Join(a.box.Restore(use.Dir), check.Wait()); err != nil {
		return false, fmt.Errorf("restore ahead: %w", err)
	}
	return true, warm(a.box)
}

// warm has the thawed guest run its reading of messages once, by the cancellation of a call that it never had, which it ignores: what it
// touches first takes the sandbox some 6 ms, which the first real message then need not wait for.
func warm(box *sandbox.Sandbox) error {
	err := wire.NewWriter(box.Stdin).Write(wire.TypeCancel, noCall, wire.Cancel{Kind: wire.KindCancelled}, nil)
	if err != nil {
		return fmt.Errorf("warm standby: %w", err)
	}
	return nil
}

// noCall is the number of no call: they count from 1.
const noCall = math.MaxUint64

// Watch calls died when the sandbox ends before the context does. Unwatch it before the sandbox is handed on.
func (a *Ahead) Watch(ctx context.Context, died func()) error {
	process, err := handoff.OpenProcess(a.box.PIDs()[0])
	if err != nil {
		return fmt.Errorf("watch sandbox: %w", err)
	}
	a.watching.Go(func() {
		defer process.Close()
		if process.Wait(ctx) == nil {
			died()
		}
	})
	return nil
}

// Unwatch waits until Watch, whose context ended, calls nothing more.
func (a *Ahead) Unwatch() { a.watching.Wait() }

// Standby tells whether the sandbox is thawed.
func (a *Ahead) Standby() bool { return a.thawed() }

// thawed tells whether there is a standby to wake.
func (a *Ahead) thawed() bool { return a != nil && a.box != nil && a.standby }

// damaged is what was found wrong with the snapshot meanwhile.
func (a *Ahead) damaged() error {
	if a == nil {
		return nil
	}
	return a.damage
}

// take hands the sandbox over; nil when there is none, or no longer.
func (a *Ahead) take() *sandbox.Sandbox {
	if a == nil {
		return nil
	}
	box := a.box
	a.box = nil
	return box
}

// groupsOf are the control groups that the sandbox was made in.
func (a *Ahead) groupsOf() *groups {
	if a == nil {
		return nil
	}
	return a.groups
}

// Discard ends the sandbox unless somebody took it, and lets go of the rest.
func (a *Ahead) Discard() error {
	a.groupsOf().close()
	box := a.take()
	if box == nil {
		return nil
	}
	err := box.Destroy()
	closeStreams(box)
	return err
}
