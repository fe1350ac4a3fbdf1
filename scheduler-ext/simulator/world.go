package simulator

import (
	"container/heap"
	"time"
)

// Model is what the cluster's parts take.
type Model struct {
	// Scale is from a decision to Nomad's start of a worker, Start from there to the first call, a fifth more or less.
	Scale, Start time.Duration
	// Concurrency is the number of slots of a worker, Max the most workers of a function.
	Concurrency, Max int
}

// world is one function's queue and workers.
type world struct {
	model  Model
	scaler Scaler
	calls  []Call
	now    time.Duration

	arrived, begun int // how many calls came, and how many of them began
	running        int
	ended          int64 // since the last look
	events         events
	workers        []*worker // that exist, the oldest first: Nomad stops the newest
	free           []*worker // a slot each, the longest free first; some may rest or be gone
	look           time.Duration

	waits   []time.Duration
	cost    time.Duration
	wanted  int
	changes int
	service mean
	serial  int
}

type worker struct {
	since, ready time.Duration
	busy         int
	resting      bool
	gone         bool
}

// mean is a moving mean.
type mean struct{ value, count float64 }

func (m *mean) add(d time.Duration) {
	m.count = min(m.count+1, 100)
	m.value += (float64(d) - m.value) / m.count
}

// event is the end of a call on a worker, or with no call the worker's readiness.
type event struct {
	at     time.Duration
	worker *worker
	call   bool
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(a, b int) bool { return e[a].at < e[b].at }
func (e events) Swap(a, b int)      { e[a], e[b] = e[b], e[a] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) } //nolint:errcheck,forcetypeassert // only events are pushed
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// run goes from event to event until all calls ended, and then until end, which counts what idle workers cost.
func (w *world) run(end time.Duration) {
	for {
		next := w.next()
		if next > end && w.begun == len(w.calls) && w.running == 0 {
			break
		}
		w.now = next
		switch {
		case w.arrived < len(w.calls) && w.calls[w.arrived].At == next:
			w.arrive()
		case len(w.events) > 0 && w.events[0].at == next:
			w.happen(heap.Pop(&w.events).(event)) //nolint:forcetypeassert // only events are pushed
		default:
			w.decide()
		}
	}
	for _, worker := range w.workers {
		w.cost += max(end-worker.since, 0)
	}
}

// never is after all that happens.
const never = time.Duration(1<<63 - 1)

func (w *world) next() time.Duration {
	next := never
	if w.arrived < len(w.calls) {
		next = w.calls[w.arrived].At
	}
	if len(w.events) > 0 {
		next = min(next, w.events[0].at)
	}
	if eager := w.scaler.Eager(); !eager || len(w.workers) > 0 || w.arrived > w.begun {
		next = min(next, max(w.look, w.now))
	}
	return next
}

func (w *world) arrive() {
	w.arrived++
	if w.scaler.Eager() { // the queue is looked at again while there are calls
		w.look = min(w.look, w.now+w.scaler.Pause(Seen{Depth: 1}))
	}
	w.dispatch()
	if w.begun < w.arrived && w.scaler.Eager() {
		w.decide()
	}
}

// dispatch gives waiting calls to free slots.
func (w *world) dispatch() {
	for w.begun < w.arrived && len(w.free) > 0 {
		worker := w.free[0]
		w.free = w.free[1:]
		if worker.resting || worker.gone {
			continue
		}
		call := w.calls[w.begun]
		w.begun++
		w.running++
		worker.busy++
		w.waits = append(w.waits, w.now-call.At)
		heap.Push(&w.events, event{w.now + call.Length, worker, true})
		w.service.add(call.Length)
	}
}

func (w *world) happen(e event) {
	if !e.call {
		if !e.worker.gone && !e.worker.resting {
			w.offer(e.worker, w.model.Concurrency)
		}
		w.dispatch()
		return
	}
	w.running--
	w.ended++
	e.worker.busy--
	if e.worker.resting {
		w.collect()
		return
	}
	w.offer(e.worker, 1)
	w.dispatch()
}

func (w *world) offer(worker *worker, slots int) {
	for range slots {
		w.free = append(w.free, worker)
	}
}

func (w *world) decide() {
	seen := Seen{Depth: int64(w.arrived - w.begun + w.running), Ended: w.ended, Count: len(w.workers), Start: w.model.Scale + w.model.Start, Service: time.Duration(w.service.value)}
	w.ended = 0
	for _, worker := range w.workers {
		if worker.ready <= w.now && !worker.resting {
			seen.Ready++
		}
	}
	w.look = w.now + w.scaler.Pause(seen)
	wanted := min(w.scaler.Decide(seen, w.now), w.model.Max)
	if wanted != w.wanted {
		w.changes++
		w.wanted = wanted
	}
	for len(w.workers) < wanted {
		w.serial++
		jitter := time.Duration(float64(w.model.Start) * 0.2 * (float64(w.serial*7919%101)/50 - 1))
		worker := &worker{since: w.now, ready: w.now + w.model.Scale + w.model.Start + jitter}
		w.workers = append(w.workers, worker)
		heap.Push(&w.events, event{worker.ready, worker, false})
	}
	for i, worker := range w.workers {
		switch rest := i >= wanted; {
		case rest:
			worker.resting = true
		case worker.resting: // called in again
			worker.resting = false
			if worker.ready <= w.now {
				w.offer(worker, w.model.Concurrency-worker.busy-w.offered(worker))
			}
		}
	}
	w.collect()
	w.dispatch()
}

// offered is how many free slots of the worker still stand in the list.
func (w *world) offered(worker *worker) int {
	count := 0
	for _, other := range w.free {
		if other == worker {
			count++
		}
	}
	return count
}

// collect ends the resting workers without calls, the newest first: Nomad stops no other.
func (w *world) collect() {
	for len(w.workers) > 0 {
		last := w.workers[len(w.workers)-1]
		if !last.resting || last.busy > 0 {
			return
		}
		last.gone = true
		w.cost += w.now - last.since
		w.workers = w.workers[:len(w.workers)-1]
	}
}
