package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/internal/schedule"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	// lookAtSpecs is how often each gateway makes the schedules of functions' specs so.
	lookAtSpecs = time.Second
	// specsAgree is how long gateways may differ in what they know of Nomad's jobs: so long, who knows less leaves a schedule alone.
	specsAgree = 3 * time.Second
)

// declared are the schedules that functions' specs have: they come, change and go with the functions.
type declared struct {
	bucket  jetstream.KeyValue
	known   map[string]scheduleRecord // as they are kept
	entries []jobs.Entry
	now     time.Time
}

// apply makes what is kept what the specs say. What another gateway changes in the same moment is looked at again.
func (d declared) apply(ctx context.Context) error {
	wanted, unreadable := make(map[string]bool), make(map[queue.Function]bool)
	var failed []error
	for _, entry := range d.entries {
		if entry.Err != nil {
			unreadable[entry.Key()] = true
			continue
		}
		if entry.Spec.IsPool() {
			continue
		}
		for _, one := range entry.Spec.Schedules {
			wanted[scheduleKey(entry.Key(), one.Name)] = true
			failed = append(failed, d.put(ctx, entry, one))
		}
	}
	for key, record := range d.known {
		if record.JobIndex == 0 || wanted[key] || unreadable[record.function] || d.now.Sub(record.Declared) < specsAgree {
			continue
		}
		if err := d.bucket.Purge(ctx, key, jetstream.LastRevision(record.revision)); err != nil && !isWrongRevision(err) {
			failed = append(failed, fmt.Errorf("end schedule %s: %w", key, err))
		}
	}
	return errors.Join(failed...)
}

// put makes or changes one schedule. One that says the same as before goes on, and its ticks with it; a paused one stays paused.
func (d declared) put(ctx context.Context, entry jobs.Entry, one spec.CallSchedule) error {
	key := scheduleKey(entry.Key(), one.Name)
	record, there := d.known[key]
	wanted := schedule.Of(one, d.now.UTC().Truncate(time.Second))
	ours := there && record.JobIndex > 0
	if ours && (record.Says(wanted) || entry.Index < record.JobIndex && d.now.Sub(record.Declared) < specsAgree) {
		return nil
	}
	wanted.Paused = ours && record.Paused
	record.Schedule, record.Seen, record.JobIndex, record.Declared = wanted, wanted.Created, entry.Index, d.now.UTC()
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode schedule %s: %w", key, err)
	}
	if there {
		_, err = d.bucket.Update(ctx, key, data, record.revision)
	} else {
		_, err = d.bucket.Create(ctx, key, data)
	}
	if err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
		return fmt.Errorf("make schedule %s: %w", key, err)
	}
	return nil
}

// isWrongRevision tells that a key was changed in between.
func isWrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// notDeclared refuses to change what a function's spec says.
func notDeclared(record *scheduleRecord) error {
	if record.JobIndex == 0 {
		return nil
	}
	return &problem{Kind: kindConflict, Message: fmt.Sprintf(
		"schedule %s of %s comes from the function's spec: change it there and deploy, or pause it", record.name, record.function)}
}
