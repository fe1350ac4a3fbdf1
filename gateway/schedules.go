package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/internal/schedule"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// lookAtSchedules is how often each gateway looks for ticks that are due.
	lookAtSchedules = 500 * time.Millisecond
	// maxSchedule is the largest request for a schedule, in bytes: its input travels in a message.
	maxSchedule = queue.MaxInline / 2
)

// schedules makes the calls that are due. Every gateway does: a tick's call has an id that follows from the tick, so that the queue
// takes it once whoever sends it, and what was seen to is written down after, so that a gateway that dies in between leaves it to
// another one.
type schedules struct{ *caller }

// scheduleRecord is a schedule as it is kept, with what was seen to.
type scheduleRecord struct {
	schedule.Schedule

	// Seen is the last tick whose call was made, or that was left out.
	Seen time.Time `json:"seen"`
	// Last is the call of the last tick.
	Last string `json:"last_call,omitempty"`
	// JobIndex is the modify index of the job whose spec has the schedule; 0 for one that was made here. Declared is when a gateway saw it.
	JobIndex uint64    `json:"job_index,omitempty"`
	Declared time.Time `json:"declared,omitzero"`

	function queue.Function
	name     string
	revision uint64
}

// scheduleKey is where a schedule is kept.
func scheduleKey(f queue.Function, name string) string {
	return strings.Join([]string{f.Namespace, f.App, f.Name, name}, ".")
}

func parseScheduleEntry(entry jetstream.KeyValueEntry) (scheduleRecord, error) {
	var record scheduleRecord
	tokens := strings.Split(entry.Key(), ".")
	if len(tokens) != 4 {
		return record, fmt.Errorf("read schedule: key %q", entry.Key())
	}
	if err := json.Unmarshal(entry.Value(), &record); err != nil {
		return record, fmt.Errorf("read schedule %s: %w", entry.Key(), err)
	}
	record.function = queue.Function{Namespace: tokens[0], App: tokens[1], Name: tokens[2]}
	record.name, record.revision = tokens[3], entry.Revision()
	return record, nil
}

// list reads the schedules that the filter of a key takes.
func (s *schedules) list(ctx context.Context, stores *stores, filter string) ([]scheduleRecord, error) {
	watcher, err := stores.schedules.Watch(ctx, filter, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("read schedules: %w", err)
	}
	defer func() { _ = watcher.Stop() }() // fails only on a closed connection
	records := []scheduleRecord{}
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil { // all that there are
				return records, nil
			}
			record, err := parseScheduleEntry(entry)
			if err != nil {
				s.exchange.log.Error().Err(err).Msg("leave out a schedule")
				continue
			}
			records = append(records, record)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// follow looks for due ticks until the context ends. It keeps the schedules in memory as their bucket changes.
func (s *schedules) follow(ctx context.Context, bucket jetstream.KeyValue) error {
	watcher, err := bucket.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch schedules: %w", err)
	}
	defer func() { _ = watcher.Stop() }() // fails only on a closed connection
	known := make(map[string]scheduleRecord)
	ticker, specs := time.NewTicker(lookAtSchedules), time.NewTicker(lookAtSpecs)
	defer ticker.Stop()
	defer specs.Stop()
	loaded := false
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil {
				loaded = true
				continue
			}
			delete(known, entry.Key())
			if entry.Operation() != jetstream.KeyValuePut {
				continue
			}
			record, err := parseScheduleEntry(entry)
			if err != nil {
				s.exchange.log.Error().Err(err).Msg("a schedule makes no calls")
				continue
			}
			known[entry.Key()] = record
		case now := <-ticker.C:
			for key, record := range known {
				if err := s.see(ctx, bucket, record, now); err != nil && ctx.Err() == nil {
					s.exchange.log.Warn().Err(err).Str("schedule", key).Msg("make the calls that are due; trying again")
				}
			}
		case now := <-specs.C:
			if !loaded || !s.functions.Ready() {
				continue
			}
			if err := s.declare(ctx, declared{bucket, known, s.functions.List(), now}); err != nil && ctx.Err() == nil {
				s.exchange.log.Warn().Err(err).Msg("make the schedules of functions' specs; trying again")
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// declare has the queue's time bounded: ticks wait for it.
func (s *schedules) declare(ctx context.Context, d declared) error {
	ctx, cancel := context.WithTimeout(ctx, tickWithin)
	defer cancel()
	return d.apply(ctx)
}

// tickWithin bounds how long the ticks of a schedule are seen to at once: the record may change meanwhile, and then it is looked at anew.
const tickWithin = 10 * time.Second

// see makes the calls of the ticks that are due, then writes down that it did. When another gateway did so first, it is well too.
func (s *schedules) see(ctx context.Context, bucket jetstream.KeyValue, record scheduleRecord, now time.Time) error {
	ticks, seen := record.Due(record.Seen, now)
	if seen.Equal(record.Seen) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tickWithin)
	defer cancel()
	for _, tick := range ticks {
		call, err := s.fire(ctx, record, tickCall(record, tick))
		if p := asProblem(err); err != nil && (p.Kind == kindNotFound || p.Kind == kindConflict || p.Kind == wire.KindInput) {
			s.exchange.log.Warn().Err(err).Str("schedule", record.name).Msg("a tick passes without a call")
			continue
		}
		if err != nil {
			return err
		}
		record.Last = call
	}
	record.Seen = seen
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode schedule: %w", err)
	}
	_, err = bucket.Update(ctx, scheduleKey(record.function, record.name), data, record.revision)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return nil
	}
	return err
}

// tickCall is the id of a tick's call: the same in every gateway.
func tickCall(record scheduleRecord, tick time.Time) string {
	sum := sha256.Sum256([]byte(scheduleKey(record.function, record.name) + " " + tick.UTC().Format(time.RFC3339Nano)))
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(tick)) // ticks are between now and 1970
	_ = id.SetEntropy(sum[:10])          // ten bytes are what it takes
	return queue.CallOfInput(queue.BatchOf(id.String()), 0)
}

// fire spawns a call of the schedule.
func (s *schedules) fire(ctx context.Context, record scheduleRecord, call string) (string, error) {
	function, err := s.find(record.function.Namespace, record.function.App, record.function.Name)
	if err != nil {
		return "", err
	}
	if function, err = s.pools.choose(ctx, function, nil, ""); err != nil {
		return "", err
	}
	if err := checkMethod(function, record.Method); err != nil {
		return "", err
	}
	now := time.Now()
	key := queue.Function{Namespace: function.Namespace, App: function.App, Name: function.Name}
	t := target{function: function, key: key, stats: s.metrics.of(key), began: now}
	t.header.contentType, t.header.method = "application/json", record.Method
	e := t.spawned()
	e.Call, e.Body, e.Again = call, record.Input, true
	s.hintDemand(t.key, t.stats, now)
	return call, (&spawns{caller: s.caller}).publishSpawned(ctx, e, t, once)
}

// scheduleView is a schedule as the API shows it.
type scheduleView struct {
	scheduleRecord

	Namespace string    `json:"namespace"`
	Function  string    `json:"function"`
	Name      string    `json:"name"`
	Next      time.Time `json:"next,omitzero"`
}

func viewSchedule(record scheduleRecord) scheduleView {
	view := scheduleView{
		scheduleRecord: record, Namespace: record.function.Namespace, Function: record.function.App + "." + record.function.Name, Name: record.name,
	}
	if !record.Paused {
		view.Next = record.Next(record.Seen)
	}
	return view
}

// path reads the schedule that a request is about.
func (s *schedules) path(r *http.Request) (queue.Function, string, error) {
	query, err := parseQuery(r.URL.RawQuery, "namespace")
	if err != nil {
		return queue.Function{}, "", err
	}
	name := r.PathValue("name")
	if !spec.ValidName(name) {
		return queue.Function{}, "", badInput("schedule", name, "use 1 to 63 letters, digits, '-' and '_'")
	}
	function, err := s.find(namespaceOf(query), r.PathValue("app"), r.PathValue("function"))
	return queue.Function{Namespace: function.Namespace, App: function.App, Name: function.Name}, name, err
}

// change loads a schedule, changes and stores it; a change by another request in between is a conflict.
func (s *schedules) change(r *http.Request, change func(*scheduleRecord) error) (scheduleRecord, error) {
	function, name, err := s.path(r)
	if err != nil {
		return scheduleRecord{}, err
	}
	stores, err := s.connected()
	if err != nil {
		return scheduleRecord{}, err
	}
	key := scheduleKey(function, name)
	record := scheduleRecord{function: function, name: name}
	entry, err := stores.schedules.Get(r.Context(), key)
	if err == nil {
		record, err = parseScheduleEntry(entry)
	}
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return record, unavailable("the schedule cannot be read; try again", err)
	}
	if err := change(&record); err != nil {
		return record, err
	}
	data, err := json.Marshal(record)
	if err != nil {
		return record, fmt.Errorf("encode schedule: %w", err)
	}
	if record.revision == 0 {
		_, err = stores.schedules.Create(r.Context(), key, data)
	} else {
		_, err = stores.schedules.Update(r.Context(), key, data, record.revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return record, &problem{Kind: kindConflict, Message: "the schedule was changed, or a tick was seen to, in the same moment; try again", retryAfter: time.Second}
	}
	if err != nil {
		return record, unavailable("the schedule could not be stored; try again", err)
	}
	return record, nil
}

func missing(record *scheduleRecord) error {
	if record.revision == 0 {
		return &problem{Kind: kindNotFound, Message: "no schedule " + record.name + " of " + record.function.String()}
	}
	return nil
}

// handlePut makes or replaces a schedule. A replaced one counts from now.
func (s *schedules) handlePut(w http.ResponseWriter, r *http.Request) {
	body, err := s.payloads.readAll(w, r, maxSchedule, "a schedule")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	wanted, err := parseSchedule(body, time.Now())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	record, err := s.change(r, func(record *scheduleRecord) error {
		if err := notDeclared(record); err != nil {
			return err
		}
		if f, ok := s.functions.Get(record.function.Namespace, record.function.App, record.function.Name); ok {
			if err := checkMethod(f, wanted.Method); err != nil {
				return err
			}
		}
		record.Schedule, record.Seen = wanted, wanted.Created
		return nil
	})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.respond(w, http.StatusOK, viewSchedule(record))
}

func parseSchedule(body []byte, now time.Time) (schedule.Schedule, error) {
	var wanted schedule.Schedule
	if err := decodeStrict(body, &wanted); err != nil {
		return wanted, badInput("body", "", "send a schedule as JSON: "+err.Error())
	}
	wanted.Created = now.UTC().Truncate(time.Second)
	if err := wanted.Check(); err != nil {
		return wanted, &problem{Kind: wire.KindInput, Message: err.Error()}
	}
	return wanted, nil
}

// handlePause and handleResume stop a schedule's calls for a while.
func (s *schedules) handlePause(w http.ResponseWriter, r *http.Request)  { s.pause(w, r, true) }
func (s *schedules) handleResume(w http.ResponseWriter, r *http.Request) { s.pause(w, r, false) }

func (s *schedules) pause(w http.ResponseWriter, r *http.Request, paused bool) {
	record, err := s.change(r, func(record *scheduleRecord) error {
		record.Paused = paused
		return missing(record)
	})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.respond(w, http.StatusOK, viewSchedule(record))
}

// handleRun makes a call of the schedule now, beside its ticks.
func (s *schedules) handleRun(w http.ResponseWriter, r *http.Request) {
	var call string
	_, err := s.change(r, func(record *scheduleRecord) error {
		if err := missing(record); err != nil {
			return err
		}
		var err error
		call, err = s.fire(r.Context(), *record, queue.CallOfInput(queue.NewBatch(time.Now()), 0))
		record.Last = call
		return err
	})
	if call == "" {
		s.refuse(w, r, err)
		return
	}
	s.respond(w, http.StatusAccepted, spawnView{Call: call, Status: statusQueued, URL: "/v1/calls/" + call})
}

// handleDelete ends a schedule; its calls go on.
func (s *schedules) handleDelete(w http.ResponseWriter, r *http.Request) {
	var key string
	_, err := s.change(r, func(record *scheduleRecord) error {
		key = scheduleKey(record.function, record.name)
		if err := notDeclared(record); err != nil {
			return err
		}
		return missing(record)
	})
	if err == nil {
		err = s.ready.Load().schedules.Purge(r.Context(), key)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// handleList lists schedules.
func (s *schedules) handleList(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "function")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	function, err := functionOf(query)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	stores, err := s.connected()
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	records, err := s.list(r.Context(), stores, function.Filter())
	if err != nil {
		s.refuse(w, r, unavailable("the schedules cannot be read; try again", err))
		return
	}
	views := []scheduleView{} // an empty list in JSON, never null
	for _, record := range records {
		views = append(views, viewSchedule(record))
	}
	slices.SortFunc(views, func(a, b scheduleView) int { return strings.Compare(a.Function+" "+a.Name, b.Function+" "+b.Name) })
	s.respond(w, http.StatusOK, views)
}
