package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Deadlines of the guest's answers. A thaw that takes longer is no better than a cold start.
const (
	thawTimeout   = 15 * time.Second
	freezeTimeout = 15 * time.Second
	helloTimeout  = 15 * time.Second
	// makerTimeout is how long a start waits for a snapshot that another worker is writing already.
	makerTimeout = 5 * time.Second
)

// phases is where a start's time went.
type phases struct {
	began  time.Time
	last   time.Time
	thawed bool
	times  map[string]float64
}

// newPhases goes on with the plugin's steps.
func newPhases(task handoff.Task) *phases {
	p := &phases{began: task.Started, last: task.Handed, times: make(map[string]float64)}
	maps.Copy(p.times, task.Steps)
	p.end("spawn")
	return p
}

// end closes the phase that began with the end of the one before.
func (p *phases) end(name string) {
	now := time.Now()
	p.times[name] = ms(now.Sub(p.last))
	p.last = now
}

func (p *phases) event(ready time.Time) queue.Event {
	p.times["total"] = ms(ready.Sub(p.began))
	return queue.Event{Kind: queue.EventReady, Thawed: p.thawed, Phases: p.times}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// boot brings the guest up: from the node's snapshot where there is one, else cold, and then freezes it for the next. A
// restore that fails is never worse than no snapshot.
func (w *Worker) boot(ctx context.Context) (*phases, error) {
	times := newPhases(w.task)
	store, err := openStore(w.task)
	if err != nil {
		return nil, err
	}
	if err := w.ahead.damaged(); err != nil {
		w.restoreFailed(nil, err)
	}
	if w.ahead.thawed() {
		if err := w.wakeStandby(ctx, times); err == nil || ctx.Err() != nil {
			return times, err
		}
	}
	if store != nil {
		use, err := w.find(ctx, store)
		if err == nil {
			err = w.thaw(ctx, use, times)
			if err != nil && ctx.Err() == nil {
				w.restoreFailed(use, err)
			}
			use.Release()
			if err == nil || ctx.Err() != nil {
				return times, err
			}
		} else if errors.Is(err, snapshot.ErrDamaged) {
			w.restoreFailed(nil, err)
		}
	}
	if err := w.startCold(ctx, times); err != nil {
		return nil, err
	}
	if store != nil {
		return times, w.freeze(ctx, store, times)
	}
	return times, nil
}

func openStore(task handoff.Task) (*snapshot.Store, error) {
	if task.Snapshots == nil {
		return nil, nil
	}
	return snapshot.Open(task.Snapshots.Dir, task.Snapshots.MaxBytes)
}

// create brings the guest an empty sandbox: the one that was made ahead, else a new one; generation tells a second one in the same
// worker apart.
func (w *Worker) create(ctx context.Context, generation string) (err error) {
	made := w.ahead.take()
	if made == nil {
		if made, err = createSandbox(w.task, w.groups, "s"+generation, w.log); err != nil {
			return err
		}
	}
	w.guest, err = openGuest(ctx, made, w.task, w.groups, w.logs, w.payloads)
	return err
}

// thaw restores the guest, while the snapshot is checked; only a checked one is told to wake.
func (w *Worker) thaw(ctx context.Context, use *snapshot.Use, times *phases) error {
	w.beats.set(queue.StateRestoring)
	check := use.Verify(ctx)
	if err := w.create(ctx, "0"); err != nil {
		return err
	}
	times.end("create")
	if err := w.guest.sandbox.Restore(use.Dir); err != nil {
		return errors.Join(err, check.Wait())
	}
	times.end("restore")
	if err := check.Wait(); err != nil {
		return err
	}
	times.end("check")
	if err := w.wake(ctx, true); err != nil {
		return err
	}
	times.end("ready")
	times.thawed = true
	w.beats.setThawed()
	return nil
}

// wake tells a frozen guest who it is now, and waits for its thaw hooks.
func (w *Worker) wake(ctx context.Context, restored bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, thawTimeout, fmt.Errorf("the thawed process did not answer within %s", thawTimeout))
	defer cancel()
	entropy := make([]byte, 32)
	_, _ = rand.Read(entropy) // never fails: crypto/rand
	msg, err := w.guest.ask(ctx, wire.TypeThawed, wire.Thawed{
		Identity: w.task.Identity, Restored: restored, Time: time.Now(), Entropy: entropy, Concurrency: w.task.Config.Concurrency,
	}, wire.TypeReady)
	if err == nil {
		err = w.guest.ready(msg)
	}
	if err != nil {
		return fmt.Errorf("wake guest: %w", err)
	}
	return nil
}

// wakeStandby wakes the copy that was thawed ahead. One that does not wake is given up, and the start goes on without it.
func (w *Worker) wakeStandby(ctx context.Context, times *phases) error {
	w.beats.set(queue.StateRestoring)
	err := w.create(ctx, "")
	if err == nil {
		err = w.wake(ctx, true)
	}
	if err != nil {
		err = errors.Join(err, w.forsake())
		w.log.Warn().Err(err).Msg("the standby does not wake; starting without it")
		return err
	}
	times.end("ready")
	times.thawed = true
	w.beats.setThawed()
	return nil
}

// forsake ends a guest that did not come up, if there is one.
func (w *Worker) forsake() error {
	if w.guest == nil {
		return nil
	}
	err := w.guest.close()
	w.guest = nil
	return err
}

// restoreFailed says loudly that a snapshot is no good and clears the way for a cold start. use is nil when the store itself
// found it out and took it out of use.
func (w *Worker) restoreFailed(use *snapshot.Use, cause error) {
	cause = errors.Join(cause, w.forsake())
	if use != nil {
		cause = errors.Join(cause, use.Quarantine(cause.Error()))
	}
	w.log.Error().Err(cause).Msg("restore failed; starting cold")
	w.logs.say("error", "thawing from the snapshot failed, starting cold: %v", cause)
	w.event(queue.Event{Kind: queue.EventRestoreFailed, Reason: cause.Error()})
}

func (w *Worker) startCold(ctx context.Context, times *phases) error {
	w.beats.set(queue.StateStarting)
	if err := w.create(ctx, "1"); err != nil {
		return err
	}
	times.end("create")
	if err := w.guest.sandbox.Start(); err != nil {
		return err
	}
	limit := w.task.Config.StartupTimeout.Std()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &wire.Error{
		Kind: wire.KindStart, Message: fmt.Sprintf("the function's enter hook did not end within its startup_timeout of %s", limit),
	})
	defer cancel()
	if err := w.hello(ctx); err != nil {
		return err
	}
	times.end("hello")
	msg, err := w.guest.await(ctx, wire.TypeReady)
	if err == nil {
		err = w.guest.ready(msg)
	}
	if err != nil {
		return fmt.Errorf("load guest: %w", err)
	}
	times.end("load")
	return nil
}

func (w *Worker) hello(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, helloTimeout, &wire.Error{
		Kind:    wire.KindProtocol,
		Message: fmt.Sprintf("the function's process did not greet within %s: its main must call app.Main() first", helloTimeout),
	})
	defer cancel()
	entry := ""
	if w.task.Config.Handler != nil {
		entry = w.task.Config.Handler.Entry
	}
	answer, err := w.guest.ask(ctx, wire.TypeHello, wire.Hello{
		MinVersion: wire.MinVersion, Version: wire.Version, Identity: w.task.Identity,
		Entry: entry, Concurrency: w.task.Config.Concurrency, MaxPayload: maxPayload, Payloads: w.task.Blobs != "", Gateway: w.task.Gateway != nil,
	}, wire.TypeWelcome)
	if err != nil {
		return fmt.Errorf("greet guest: %w", err)
	}
	var welcome wire.Welcome
	if err := answer.DecodeMeta(&welcome); err != nil {
		return &wire.Error{Kind: wire.KindProtocol, Message: fmt.Sprintf("the function's process greeted with what is none: %v", err)}
	}
	if welcome.Version < wire.MinVersion || welcome.Version > wire.Version {
		return &wire.Error{Kind: wire.KindProtocol, Message: fmt.Sprintf("greet guest: %v: it chose %d", wire.ErrVersion, welcome.Version)}
	}
	return nil
}

// commit makes a written snapshot one that others find.
func commit(task handoff.Task, making *snapshot.Making) error {
	var inputs snapshot.Inputs
	if err := json.Unmarshal(task.Snapshots.Inputs, &inputs); err != nil {
		return fmt.Errorf("read snapshot inputs: %w", err)
	}
	return making.Commit(inputs)
}

// freeze stores the loaded guest for later workers, unless somebody else is at it. Only a guest that does not wake again is
// an error; a snapshot that fails otherwise costs the next worker a cold start.
func (w *Worker) freeze(ctx context.Context, store *snapshot.Store, times *phases) error {
	loaded := times.last.Sub(times.began)
	making, err := store.Make(w.task.Snapshots.Key)
	if errors.Is(err, snapshot.ErrBusy) {
		return nil
	}
	if err != nil {
		w.log.Warn().Err(err).Msg("begin snapshot; going on without")
		return nil
	}
	defer making.Abort()
	making.Load = loaded
	quiet, cancel := context.WithTimeoutCause(ctx, freezeTimeout, fmt.Errorf("the process did not get quiet within %s", freezeTimeout))
	defer cancel()
	if _, err := w.guest.ask(quiet, wire.TypeFreeze, nil, wire.TypeFrozen); err != nil {
		return fmt.Errorf("freeze guest: %w", err)
	}
	frozen := w.guest.sandbox.Checkpoint(making.Dir)
	if err := w.wake(ctx, false); err != nil {
		return errors.Join(frozen, err)
	}
	if frozen == nil {
		frozen = commit(w.task, making)
	}
	times.end("freeze")
	if frozen != nil {
		w.log.Warn().Err(frozen).Msg("store snapshot; going on without")
		return nil
	}
	w.event(queue.Event{Kind: queue.EventSnapshotStored, Phases: map[string]float64{"freeze": times.times["freeze"]}})
	return nil
}
