// Package supervisor is the host side of one worker: it owns the sandbox, pulls calls from the function's queue, gives them to
// the guest and stores their results before it acknowledges them. It outlives the driver plugin and the Nomad agent, and
// shares only files with them.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// maxPayload is the largest output accepted from a guest: what fits into a message.
const maxPayload = queue.MaxInline

// Worker is one allocation's worker.
type Worker struct {
	calls

	function queue.Function
	logs     *logs
	payloads *payloads
	rest     rest
	// ahead is what was made before there was a task.
	ahead  *Ahead
	groups *groups
	// web is nil for a function without a server of its own.
	web *web
}

// Run runs the task until the context ends (it then drains) or the guest does, and tells how it ended. ahead, which may be nil, is
// what was made for a task like it; Run takes it over.
func Run(ctx context.Context, task handoff.Task, ahead *Ahead, log zerolog.Logger) handoff.Exit {
	var exit handoff.Exit
	if task.Config.Handler == nil {
		exit = runPlain(ctx, task, log)
	} else {
		exit = runWorker(ctx, task, ahead, log)
	}
	exit.Time = time.Now()
	return exit
}

// runWorker runs a function's worker.
func runWorker(ctx context.Context, task handoff.Task, ahead *Ahead, log zerolog.Logger) handoff.Exit {
	w := &Worker{
		ahead:    ahead,
		calls:    calls{task: task, log: log, flying: make(map[string]*queue.Delivery), recycle: make(chan struct{})},
		function: queue.Function{Namespace: task.Identity.Namespace, App: task.Identity.App, Name: task.Identity.Function},
	}
	exit := w.runIn(ctx)
	if err := ahead.Discard(); err != nil { // when it ended before its guest was needed
		log.Warn().Err(err).Msg("discard what was made ahead")
	}
	return exit
}

// runIn runs the worker in its control groups.
func (w *Worker) runIn(ctx context.Context) handoff.Exit {
	if w.groups = w.ahead.groupsOf(); w.groups == nil {
		var err error
		if w.groups, err = openGroups(ctx, w.task.Cgroups, w.log); err != nil {
			return failure(err)
		}
		defer w.groups.close()
	}
	return w.run(ctx)
}

func (w *Worker) run(ctx context.Context) handoff.Exit {
	if err := w.connect(ctx); err != nil {
		return failure(err)
	}
	defer w.nc.Close()
	var err error
	if w.results, err = queue.OpenStore(w.nc, w.task.Identity.Alloc); err != nil {
		return failure(err)
	}
	defer w.results.Close()
	if w.logs, err = openLogs(w.task, w.nc, w.function.LogsSubject(w.task.Identity.Alloc), w.log); err != nil {
		return failure(err)
	}
	defer func() { _ = w.logs.close() }() // each line was written when it came
	w.payloads = newPayloads(w.task, w.function)
	defer func() { _ = w.payloads.close() }() // each payload was stored when it came
	w.beats = startHeartbeats(w)
	exit := w.live(ctx)
	w.beats.stop(exit.Reason)
	w.flush()
	return exit
}

// live is the worker's life between its first and its last heartbeat.
func (w *Worker) live(ctx context.Context) handoff.Exit {
	if err := w.rest.listen(w); err != nil {
		return failure(err)
	}
	defer w.rest.close()
	opened := make(chan error, 1)
	go func() { opened <- w.openPuller(ctx) }() // received below, always
	started, bootErr := w.boot(ctx)
	if err := <-opened; err != nil {
		return w.abandon(errors.Join(err, bootErr))
	}
	defer w.puller.Close()
	if bootErr != nil {
		if ctx.Err() == nil && !w.task.Warm && !w.guest.wasRobbed() { // the calls are for the version that runs
			w.answerWaiting(ctx, bootErr)
		}
		return w.abandon(bootErr)
	}
	if w.task.Warm {
		if err := w.forsake(); err != nil {
			return failure(err)
		}
		return handoff.Exit{}
	}
	w.batches = newBatches(&w.calls)
	if w.task.Config.ServesWeb() {
		door, err := openWeb(ctx, w)
		if err != nil {
			return w.abandon(err)
		}
		w.beats.open(door)
		defer door.close(ctx)
	}
	w.ready = time.Now()
	w.event(started.event(w.ready))
	w.beats.set(queue.StateReady)
	debug.FreeOSMemory() // starting allocated once what serving never needs
	// From here on it waits and passes on. With one processor a message goes from one goroutine to the next without waking
	// another thread, which takes a tenth off a call's time (docs/decisions/0007).
	runtime.GOMAXPROCS(1)
	if err := w.rest.serve(w.puller); err != nil {
		return w.abandon(err)
	}
	stop := push{w.task, w.log}.start(ctx)
	exit := w.serve(ctx)
	stop()
	if err := w.guest.close(); err != nil {
		w.log.Warn().Err(err).Msg("clean up sandbox")
	}
	return exit
}

// abandon ends a worker that never served.
func (w *Worker) abandon(err error) handoff.Exit {
	err = errors.Join(err, w.forsake())
	w.logs.say("error", "the worker did not start: %v", err)
	w.event(queue.Event{Kind: queue.EventStartFailed, Reason: err.Error()})
	return failure(err)
}

func failure(err error) handoff.Exit { return handoff.Exit{Code: 1, Reason: err.Error()} }

func (w *Worker) openPuller(ctx context.Context) error {
	puller, err := queue.OpenPuller(ctx, w.nc, w.function, w.task.Config.Slots(), w.log, queue.MaxRunning(w.task.Config.MaxRunning))
	for err != nil && ctx.Err() == nil { // NATS may still be coming up, or the stream be made
		w.log.Warn().Err(err).Msg("open queue; trying again")
		select {
		case <-time.After(reconnectWait):
		case <-ctx.Done():
		}
		puller, err = queue.OpenPuller(ctx, w.nc, w.function, w.task.Config.Slots(), w.log, queue.MaxRunning(w.task.Config.MaxRunning))
	}
	w.puller = puller
	return err
}

// serve takes calls until the worker is asked to stop, the guest dies or gets stuck.
func (w *Worker) serve(ctx context.Context) handoff.Exit {
	taking, stop := context.WithCancel(ctx)
	defer stop()
	var taker sync.WaitGroup
	taker.Go(func() { w.take(taking) })
	var exit handoff.Exit
	select {
	case <-ctx.Done():
		exit = w.drain(context.WithoutCancel(ctx))
	case <-w.guest.dead:
		w.puller.Stop()
		w.beats.set(queue.StateDraining)
		exit = w.died()
	case <-w.recycle:
		exit = w.replace(context.WithoutCancel(ctx))
	}
	stop()
	taker.Wait()
	w.running.Wait()
	return exit
}

// take gives each call to a handler that waits for one, or to one more: a goroutine that has run a call has the stack for the next.
func (w *Worker) take(ctx context.Context) {
	work := make(chan *queue.Delivery)
	defer close(work)
	for {
		delivery, err := w.puller.Next(ctx)
		if err != nil {
			return // stopping: deliveries not taken go back when the puller closes
		}
		w.beats.changed()
		select {
		case work <- delivery:
		default:
			w.running.Go(func() {
				for ok := true; ok; delivery, ok = <-work {
					w.handle(context.WithoutCancel(ctx), delivery)
				}
			})
		}
	}
}

// drain lets the running calls finish, or hands them over when that is asked for. Nomad's kill_timeout bounds it from outside.
func (w *Worker) drain(ctx context.Context) handoff.Exit {
	w.beats.set(queue.StateDraining)
	w.batches.hurry()
	finished, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-w.guest.dead:
			cancel()
		case <-finished.Done():
		}
	})
	watch.Go(func() {
		if w.rest.handOver(finished) {
			w.over.Store(true)
			cancel()
		}
	})
	err := w.puller.Drain(finished)
	cancel()
	watch.Wait()
	switch {
	case err != nil && w.over.Load():
		w.logs.say("info", "the worker's calls go on in the next version")
		_ = w.guest.sandbox.Kill() // ends the calls, whose handlers give them back
		w.event(queue.Event{Kind: queue.EventStopped})
		return handoff.Exit{}
	case err != nil:
		return w.died()
	}
	w.web.close(ctx)
	w.dismiss(ctx)
	w.event(queue.Event{Kind: queue.EventStopped})
	return handoff.Exit{}
}

// dismissWait is how long a guest without calls may take to run its last hooks.
const dismissWait = 5 * time.Second

// dismiss asks the guest to end by itself.
func (w *Worker) dismiss(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, dismissWait)
	defer cancel()
	if _, err := w.guest.ask(ctx, wire.TypeDrain, nil, wire.TypeDrained); err != nil {
		w.log.Info().Err(err).Msg("guest did not end by itself")
	}
}

// died reports a guest that ended while it should have gone on. Its calls are ended by their handlers.
func (w *Worker) died() handoff.Exit {
	reason := w.guest.death
	w.logs.say("error", "the worker ends: %s", reason.Message)
	w.event(queue.Event{Kind: queue.EventCrashed, Reason: reason.Message})
	return handoff.Exit{Code: 1, Reason: reason.Message, OOM: reason.Kind == wire.KindMemory}
}

// othersWait is how long the other calls of a stuck worker may go on before they are given to other workers.
const othersWait = 10 * time.Second

// replace ends a worker one of whose calls does not end: the others get some time, then go back to the queue.
func (w *Worker) replace(ctx context.Context) handoff.Exit {
	w.beats.set(queue.StateDraining)
	w.batches.hurry()
	ctx, cancel := context.WithTimeout(ctx, othersWait)
	defer cancel()
	if err := w.puller.Drain(ctx); err != nil {
		w.log.Warn().Err(err).Msg("other calls go back to the queue")
	}
	w.puller.Close()
	reason := fmt.Sprintf("call %s did not end %s after it was cancelled, so its worker is replaced", w.stuck, cancelGrace)
	w.logs.say("error", "%s", reason)
	w.event(queue.Event{Kind: queue.EventCrashed, Reason: reason})
	_ = w.guest.sandbox.Kill() // frees whoever still waits for the guest
	return handoff.Exit{Code: 1, Reason: reason}
}
