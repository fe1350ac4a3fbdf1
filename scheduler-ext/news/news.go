// Package news follows what Nomad makes of the counts: which workers it found no place for, and which could not start.
package news

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/queue"
)

// Item is one piece of news about a function.
type Item struct {
	Function queue.Function
	// Job is the Nomad job's id.
	Job string
	// Unplaced is set by a finished evaluation: the number of workers without a place, by group; empty when all have one. Why
	// says what is missing.
	Evaluated bool
	// JobIndex is the index of the job that was evaluated.
	JobIndex uint64
	Unplaced map[string]int
	Why      string
	// Alloc is an allocation that failed on its node, Failed why.
	Alloc, Failed string
}

// retryWait is the pause before Nomad is asked again after a failure.
const retryWait = 500 * time.Millisecond

// Reader follows Nomad's event stream. Open starts it, Close ends it.
type Reader struct {
	nomad   *api.Client
	tell    func(Item)
	log     zerolog.Logger
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Open begins to read; tell is called for each item, from one goroutine. Close it.
func Open(ctx context.Context, nomad *api.Client, tell func(Item), log zerolog.Logger) *Reader {
	r := &Reader{nomad: nomad, tell: tell, log: log}
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.running.Go(func() { r.run(ctx) })
	return r
}

// Close ends the reading and waits for it.
func (r *Reader) Close() {
	r.cancel()
	r.running.Wait()
}

func (r *Reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.follow(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn().Err(err).Msg("follow Nomad's evaluations; trying again")
		}
		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
		}
	}
}

func (r *Reader) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	topics := map[api.Topic][]string{api.TopicEvaluation: {"*"}, api.TopicAllocation: {"*"}}
	events, err := r.nomad.EventStream().Stream(ctx, topics, 0, (&api.QueryOptions{Namespace: "*"}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("open event stream: %w", err)
	}
	for batch := range events {
		if batch.Err != nil {
			return fmt.Errorf("read event stream: %w", batch.Err)
		}
		for i := range batch.Events {
			if err := r.event(&batch.Events[i]); err != nil {
				return err
			}
		}
	}
	return errors.New("the event stream ended")
}

// event takes one event; its payload is decoded as the HTTP API's own JSON.
func (r *Reader) event(e *api.Event) error {
	raw, err := json.Marshal(e.Payload)
	if err != nil {
		return fmt.Errorf("decode event of %s: %w", e.Key, err)
	}
	var payload struct {
		Evaluation *api.Evaluation
		Allocation *api.Allocation
	}
	if err := json.Unmarshal(raw, &payload); err != nil {
		return fmt.Errorf("decode event of %s: %w", e.Key, err)
	}
	if evaluation := payload.Evaluation; evaluation != nil && evaluation.Status == api.EvalStatusComplete {
		if item, ok := itemOf(evaluation); ok {
			r.tell(item)
		}
	}
	if alloc := payload.Allocation; alloc != nil && alloc.ClientStatus == api.AllocClientStatusFailed {
		if function, ok := functionOf(alloc.Namespace, alloc.JobID); ok {
			r.tell(Item{Function: function, Job: alloc.JobID, Alloc: alloc.ID, Failed: failure(alloc)})
		}
	}
	return nil
}

// Blocked is what Nomad has found no place for at this moment, for whoever did not hear it when it was news.
func Blocked(ctx context.Context, nomad *api.Client) ([]Item, error) {
	query := (&api.QueryOptions{Namespace: api.AllNamespacesNamespace, Filter: `Status == "blocked"`}).WithContext(ctx)
	evaluations, _, err := nomad.Evaluations().List(query)
	if err != nil {
		return nil, fmt.Errorf("list blocked evaluations: %w", err)
	}
	var items []Item
	for _, evaluation := range evaluations {
		if item, ok := itemOf(evaluation); ok {
			items = append(items, item)
		}
	}
	return items, nil
}

// itemOf is what an evaluation says; false for one that is not of a function's job.
func itemOf(evaluation *api.Evaluation) (Item, bool) {
	function, ok := functionOf(evaluation.Namespace, evaluation.JobID)
	if !ok {
		return Item{}, false
	}
	item := Item{Function: function, Job: evaluation.JobID, Evaluated: true, JobIndex: evaluation.JobModifyIndex, Unplaced: make(map[string]int)}
	for group, metric := range evaluation.FailedTGAllocs {
		item.Unplaced[group] = 1 + metric.CoalescedFailures
		item.Why = missing(metric)
	}
	return item, true
}

// functionOf reads a job's name; whether it is a function's is the listener's to know.
func functionOf(namespace, job string) (queue.Function, bool) {
	app, name, ok := strings.Cut(job, ".")
	return queue.Function{Namespace: namespace, App: app, Name: name}, ok
}

// missing says in words what no node has.
func missing(m *api.AllocationMetric) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m.DimensionExhausted)) {
		parts = append(parts, fmt.Sprintf("%s exhausted on %d nodes", name, m.DimensionExhausted[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(m.ConstraintFiltered)) {
		parts = append(parts, fmt.Sprintf("%s on %d nodes", name, m.ConstraintFiltered[name]))
	}
	if m.NodesEvaluated == 0 {
		parts = append(parts, "no node is eligible")
	}
	return strings.Join(parts, ", ")
}

// failure is the last thing that a driver or a set-up said went wrong in an allocation, else what Nomad made of it: that a task is not
// restarted says nothing of why.
func failure(alloc *api.Allocation) string {
	said, reason := "", alloc.ClientDescription
	for _, task := range alloc.TaskStates {
		for _, event := range task.Events {
			switch {
			case event.Type == api.TaskDriverFailure || event.Type == api.TaskSetupFailure:
				said = event.DisplayMessage
			case event.FailsTask:
				reason = event.DisplayMessage
			}
		}
	}
	return cmp.Or(said, reason)
}
