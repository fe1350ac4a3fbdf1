package supervisor

import (
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
)

// beatGap is the least time between heartbeats that tell of changes: at 3,000 calls a second each must not make one.
const beatGap = 50 * time.Millisecond

// heartbeats tells gateways and the autoscaler how the worker is: at once when its state changes, soon when its load does,
// and every queue.HeartbeatEvery in any case.
type heartbeats struct {
	worker  *Worker
	started time.Time
	change  chan struct{}
	quit    chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	state  queue.State
	thawed bool
	reason string
}

func startHeartbeats(w *Worker) *heartbeats {
	b := &heartbeats{
		worker: w, started: w.task.Started, state: queue.StateStarting,
		change: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	b.running.Go(b.run)
	return b
}

func (b *heartbeats) run() {
	ticker := time.NewTicker(queue.HeartbeatEvery)
	defer ticker.Stop()
	gap := time.NewTimer(0)
	defer gap.Stop()
	for {
		b.send()
		select { // not again before the gap is over
		case <-gap.C:
		case <-b.quit:
			b.send()
			return
		}
		select {
		case <-b.change:
		case <-ticker.C:
		case <-b.quit:
			b.send()
			return
		}
		gap.Reset(beatGap)
	}
}

func (b *heartbeats) send() {
	data, err := b.now().Encode()
	if err == nil {
		err = b.worker.nc.Publish(b.worker.function.WorkerSubject(b.worker.task.Identity.Alloc), data)
	}
	if err != nil {
		b.worker.log.Debug().Err(err).Msg("send heartbeat")
	}
}

func (b *heartbeats) now() queue.Heartbeat {
	w := b.worker
	b.mu.Lock()
	defer b.mu.Unlock()
	beat := queue.Heartbeat{
		Namespace: w.function.Namespace, App: w.function.App, Function: w.function.Name,
		Version: w.task.Identity.Version, Alloc: w.task.Identity.Alloc, Node: w.task.Node,
		State: b.state, Slots: w.task.Config.Slots(),
		Done: w.done.Load(), Failed: w.failed.Load(),
		Started: b.started, Thawed: b.thawed, Reason: b.reason,
	}
	if b.state == queue.StateReady || b.state == queue.StateDraining {
		beat.Ready = w.ready
		beat.Busy, beat.Web = w.puller.Busy(), w.puller.Loans().Count()
		beat.Door = w.web.announced()
	}
	if beat.State == queue.StateReady && beat.Busy > 0 {
		beat.State = queue.StateBusy
	}
	w.rest.tell(&beat)
	return beat
}

// set changes the state and tells of it at once, or within the gap.
func (b *heartbeats) set(state queue.State) {
	b.mu.Lock()
	b.state = state
	b.mu.Unlock()
	b.changed()
}

// open lets heartbeats tell of the web door from now on.
func (b *heartbeats) open(door *web) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.worker.web = door
}

func (b *heartbeats) setThawed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.thawed = true
}

// changed tells of a new load soon.
func (b *heartbeats) changed() {
	select {
	case b.change <- struct{}{}:
	default:
	}
}

// stop sends the last heartbeat.
func (b *heartbeats) stop(reason string) {
	b.mu.Lock()
	b.state, b.reason = queue.StateStopped, reason
	b.mu.Unlock()
	close(b.quit)
	b.running.Wait()
}
