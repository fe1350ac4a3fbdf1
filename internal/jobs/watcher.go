package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// retryWait is the pause before Nomad is asked again after a failure; listen is how long one event stream is trusted before
// the list is read again, in case an event was lost.
const (
	retryWait = 500 * time.Millisecond
	listen    = 5 * time.Minute
)

// Entry is a function as Nomad has it.
type Entry struct {
	// Spec has its defaults set.
	Spec spec.Function
	// Err says what is wrong with the job, which then cannot be called or scaled.
	Err error
	// Policy says what is wrong with the scaling block alone: Spec.Scaling is then the last good one.
	Policy error
	// Job is the Nomad job's id, Groups its groups of workers in the order of preference, Count how many workers they should
	// have together.
	Job    string
	Groups []Group
	Count  int
	// Index is the job's modify index: a higher one is newer.
	Index uint64
	// Created is the index at which the job was made: a lower one is older.
	Created uint64
}

// Key is the function's name in the queue.
func (e Entry) Key() queue.Function {
	return queue.Function{Namespace: e.Spec.Namespace, App: e.Spec.App, Name: e.Spec.Name}
}

// Watcher keeps the set of functions as Nomad's event stream tells it. While Nomad is away it keeps what it last knew.
type Watcher struct {
	nomad *api.Client
	log   zerolog.Logger

	cancel  context.CancelFunc
	running sync.WaitGroup
	synced  chan struct{} // closed after the first list

	mu      sync.RWMutex
	entries map[queue.Function]Entry
	changed []func(queue.Function)
}

// NewWatcher makes a watcher; Open starts it. changed is called after each change, from one goroutine; nil for none.
func NewWatcher(nomad *api.Client, changed func(queue.Function), log zerolog.Logger) *Watcher {
	w := &Watcher{nomad: nomad, log: log, synced: make(chan struct{}), entries: make(map[queue.Function]Entry)}
	if changed != nil {
		w.changed = append(w.changed, changed)
	}
	return w
}

// OnChange has f called too after each change that comes from now on.
func (w *Watcher) OnChange(f func(queue.Function)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = append(w.changed, f)
}

func (w *Watcher) tell(key queue.Function) {
	w.mu.RLock()
	listeners := w.changed
	w.mu.RUnlock()
	for _, f := range listeners {
		f(key)
	}
}

// Open begins to watch. It does not wait for Nomad; Ready tells. Close it.
func (w *Watcher) Open(ctx context.Context) {
	ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.running.Go(func() { w.run(ctx) })
}

// Close ends the watching and waits for it.
func (w *Watcher) Close() {
	w.cancel()
	w.running.Wait()
}

// Ready says that the functions were listed at least once.
func (w *Watcher) Ready() bool {
	select {
	case <-w.synced:
		return true
	default:
		return false
	}
}

// Get finds a function that can be called.
func (w *Watcher) Get(namespace, app, name string) (spec.Function, bool) {
	entry, ok := w.Entry(queue.Function{Namespace: namespace, App: app, Name: name})
	return entry.Spec, ok && entry.Err == nil
}

// Entry finds a function, also one whose job is wrong.
func (w *Watcher) Entry(key queue.Function) (Entry, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	entry, ok := w.entries[key]
	return entry, ok
}

// Await returns when the function is known in the version, or the context ends.
func (w *Watcher) Await(ctx context.Context, namespace, app, name, version string) {
	for {
		if f, ok := w.Get(namespace, app, name); ok && f.Version == version {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// List returns all functions, by name.
func (w *Watcher) List() []Entry {
	w.mu.RLock()
	list := make([]Entry, 0, len(w.entries))
	for _, entry := range w.entries {
		list = append(list, entry)
	}
	w.mu.RUnlock()
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Key().String(), b.Key().String()) })
	return list
}

func (w *Watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.log.Warn().Err(err).Msg("follow Nomad; trying again")
		}
		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
		}
	}
}

// follow lists the jobs, then takes events from there on, until the stream ends or is due for renewal. The stream is opened
// before the list is read, so that nothing falls between them; entries carry Nomad's index, so the order does not matter.
func (w *Watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, listen)
	defer cancel()
	all := &api.QueryOptions{Namespace: "*"}
	events, err := w.nomad.EventStream().Stream(ctx, topics(), 0, all.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("open event stream: %w", err)
	}
	if err := w.list(ctx); err != nil {
		return err
	}
	for batch := range events {
		if batch.Err != nil {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil
			}
			return fmt.Errorf("read event stream: %w", batch.Err)
		}
		for i := range batch.Events {
			if err := w.event(ctx, &batch.Events[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// list reads all jobs and drops the functions that are gone.
func (w *Watcher) list(ctx context.Context) error {
	stubs, meta, err := w.nomad.Jobs().List((&api.QueryOptions{Namespace: "*", Params: map[string]string{"meta": "true"}}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("list jobs: %w", err)
	}
	seen := make(map[string]bool)
	for _, stub := range stubs {
		if stub.Meta[MetaApp] == "" || stub.Stop {
			continue
		}
		seen[stub.Namespace+"/"+stub.ID] = true
		job, _, err := w.nomad.Jobs().Info(stub.ID, (&api.QueryOptions{Namespace: stub.Namespace}).WithContext(ctx))
		if err != nil {
			return fmt.Errorf("read job %s: %w", stub.ID, err)
		}
		w.put(ctx, job)
	}
	for _, entry := range w.List() {
		if !seen[entry.Spec.Namespace+"/"+entry.Job] && entry.Index <= meta.LastIndex {
			w.drop(entry.Key())
		}
	}
	if !w.Ready() {
		close(w.synced)
	}
	return nil
}

// topics are the events that tell of functions. Jobs tell of all but their purge, which shows as an evaluation only (seen with
// Nomad 1.6.3).
func topics() map[api.Topic][]string {
	return map[api.Topic][]string{api.TopicJob: {"*"}, api.TopicEvaluation: {"*"}}
}

// triggerDeregister is why Nomad evaluates a job that was stopped or purged.
const triggerDeregister = "job-deregister"

// event takes a change. The payload is decoded as the HTTP API's own JSON: the client's decoder knows fewer types.
func (w *Watcher) event(ctx context.Context, e *api.Event) error {
	raw, err := json.Marshal(e.Payload)
	if err != nil {
		return fmt.Errorf("decode event of %s: %w", e.Key, err)
	}
	var payload struct {
		Job        *api.Job
		Evaluation *api.Evaluation
	}
	if err := json.Unmarshal(raw, &payload); err != nil {
		return fmt.Errorf("decode event of %s: %w", e.Key, err)
	}
	switch {
	case e.Topic == api.TopicJob && payload.Job != nil:
		w.put(ctx, payload.Job)
	case payload.Evaluation != nil && payload.Evaluation.TriggeredBy == triggerDeregister:
		return w.look(ctx, payload.Evaluation.Namespace, payload.Evaluation.JobID)
	}
	return nil
}

// look reads a job that may be gone.
func (w *Watcher) look(ctx context.Context, namespace, id string) error {
	job, _, err := w.nomad.Jobs().Info(id, (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	var response api.UnexpectedResponseError
	if errors.As(err, &response) && response.StatusCode() == http.StatusNotFound {
		for _, entry := range w.List() {
			if entry.Spec.Namespace == namespace && entry.Job == id {
				w.drop(entry.Key())
			}
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read job %s: %w", id, err)
	}
	w.put(ctx, job)
	return nil
}

// put takes a job as Nomad has it, unless a newer one is known.
func (w *Watcher) put(ctx context.Context, job *api.Job) {
	function, err := Function(job)
	if errors.Is(err, ErrNotFunction) {
		return
	}
	entry := Entry{Spec: function, Err: err, Job: value(job.ID), Groups: groups(job), Index: max(value(job.JobModifyIndex), value(job.ModifyIndex)), Created: value(job.CreateIndex)}
	for _, group := range entry.Groups {
		entry.Count += group.Count
	}
	key := entry.Key()
	known, ok := w.Entry(key)
	var policy *PolicyError
	if errors.As(err, &policy) {
		entry.Err, entry.Policy = nil, policy
		entry.Spec.Scaling = w.lastGood(ctx, job, known)
	}
	w.mu.Lock()
	if newest, ok := w.entries[key]; ok && newest.Index > entry.Index {
		w.mu.Unlock()
		return
	}
	if value(job.Stop) {
		delete(w.entries, key)
	} else {
		w.entries[key] = entry
	}
	w.mu.Unlock()
	if err != nil && (!ok || known.Err == nil && known.Policy == nil) {
		w.log.Warn().Err(err).Msg("a function's job is wrong")
	}
	w.tell(key)
}

// lastGood is the scaling that a job had before it got a wrong one: the one known, else that of an earlier version of the job,
// else the default.
func (w *Watcher) lastGood(ctx context.Context, job *api.Job, known Entry) spec.Scaling {
	if known.Job != "" && known.Err == nil {
		return known.Spec.Scaling
	}
	versions, _, _, err := w.nomad.Jobs().Versions(value(job.ID), false, (&api.QueryOptions{Namespace: value(job.Namespace)}).WithContext(ctx))
	if err != nil {
		w.log.Warn().Err(err).Str("job", value(job.ID)).Msg("look for an earlier scaling policy; using the default one")
	}
	for _, version := range versions { // the newest first
		if f, err := Function(version); err == nil {
			return f.Scaling
		}
	}
	return spec.Function{}.WithDefaults().Scaling
}

func (w *Watcher) drop(key queue.Function) {
	w.mu.Lock()
	delete(w.entries, key)
	w.mu.Unlock()
	w.tell(key)
}
