package queue_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/oklog/ulid/v2"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

func isCancelled(d *queue.Delivery) bool {
	select {
	case <-d.Cancelled():
		return true
	default:
		return false
	}
}

// TestCancellationReachesRunningAndQueuedCalls, those of workers that start later too, and one alone or a whole batch.
func TestCancellationReachesRunningAndQueuedCalls(t *testing.T) {
	r := newRig(t)
	ids := r.publish(t, 3)
	p := r.open(t, 1)
	running := next(t, p)
	for _, id := range ids[:2] {
		if err := queue.Cancel(t.Context(), r.js, function, id); err != nil {
			t.Fatal(err)
		}
	}
	eventually.True(t, "the running call hears of it", func() bool { return isCancelled(running) })
	late := r.open(t, 2)
	if d := next(t, late); d.Call != ids[1] || !isCancelled(d) {
		t.Errorf("a worker that came later got %s, cancelled: %v", d.Call, isCancelled(d))
	}
	batched := next(t, late)
	if batched.Call != ids[2] || isCancelled(batched) {
		t.Fatalf("call %s, which nobody cancelled: %v", batched.Call, isCancelled(batched))
	}
	if err := queue.Cancel(t.Context(), r.js, function, queue.BatchOf(ids[2])); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the batch's call hears of it", func() bool { return isCancelled(batched) })
}

// TestNewDeliveryOfARunningCallHearsWhatTheOlderOneDoes: the call runs on under the older one.
func TestNewDeliveryOfARunningCallHearsWhatTheOlderOneDoes(t *testing.T) {
	r := newRig(t)
	ids := r.publish(t, 1)
	older := next(t, r.open(t, 1))
	p := r.open(t, 1)
	older.Drop() // so that the server gives it to the second one
	newer := next(t, p)
	newer.Follow(older)
	if err := queue.Cancel(t.Context(), r.js, function, ids[0]); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the older delivery hears of it", func() bool { return isCancelled(older) })
}

func TestMaxRunningBoundsAllWorkersTogether(t *testing.T) {
	r := newRig(t)
	r.publish(t, 4)
	open := func() *queue.Puller {
		p, err := queue.OpenPuller(t.Context(), r.nc, function, 4, zerolog.Nop(), queue.MaxRunning(2))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, other := open(), open()
	held := func() int { return one.Busy() + other.Busy() }
	eventually.True(t, "two calls run", func() bool { return held() == 2 })
	settled := make(map[string]bool)
	for len(settled) < 4 {
		for _, p := range []*queue.Puller{one, other} {
			if p.Busy() == 0 {
				continue
			}
			d := next(t, p)
			if held() > 2 {
				t.Fatalf("%d calls run at once", held())
			}
			settled[d.Call] = true
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFailedAttemptsAreTold(t *testing.T) {
	r := newRig(t)
	call := ulid.Make().String()
	for _, number := range []int{1, 3} {
		failed := queue.FailedAttempt{Attempt: number, Worker: "alloc", Error: wire.Error{Kind: wire.KindUser, Message: "no", Traceback: "long"}}
		if err := queue.RecordAttempt(r.nc, call, failed); err != nil {
			t.Fatal(err)
		}
	}
	var attempts []queue.FailedAttempt
	eventually.True(t, "the attempts are there", func() bool {
		var err error
		if attempts, err = queue.LoadAttempts(t.Context(), r.nc, call, 0); err != nil {
			t.Fatal(err)
		}
		return len(attempts) == 3
	})
	kinds := []wire.Kind{attempts[0].Error.Kind, attempts[1].Error.Kind, attempts[2].Error.Kind}
	if d := cmp.Diff([]wire.Kind{wire.KindUser, wire.KindLost, wire.KindUser}, kinds); d != "" || attempts[2].Error.Traceback != "" {
		t.Errorf("attempts %+v", attempts)
	}
	if none, err := queue.LoadAttempts(t.Context(), r.nc, ulid.Make().String(), 0); err != nil || len(none) != 0 {
		t.Errorf("an unknown call: %v, %v", none, err)
	}
}

func TestDeadCallsAreKeptAndReplayed(t *testing.T) {
	r := newRig(t)
	call := ulid.Make().String()
	dead := queue.DeadCall{
		Envelope: queue.Envelope{Function: function, Call: call, Attempt: 3, Published: time.Now(), ContentType: "text/plain", Body: []byte("input")},
		Reason:   wire.Error{Kind: wire.KindCrash, Message: strings.Repeat("é\n", 2000)},
	}
	store, err := queue.OpenStore(r.nc, "alloc-1")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for range 2 { // a worker that died in between does it again
		if err := queue.Bury(t.Context(), r.js, dead); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Put(t.Context(), queue.Result{Call: call, Worker: "alloc-1", Attempt: 3, Error: &dead.Reason}, ""); err != nil {
		t.Fatal(err)
	}
	found, err := queue.LoadDead(t.Context(), r.nc, call)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(dead.Envelope, found.Envelope, cmpopts.EquateApproxTime(time.Millisecond)); d != "" || found.Reason.Kind != wire.KindCrash || found.Died.IsZero() {
		t.Errorf("found %+v: %s", found, d)
	}
	if err := found.Replay(t.Context(), r.js); err != nil {
		t.Fatal(err)
	}
	d := next(t, r.open(t, 1))
	if d.Call != call || d.Attempt != 4 || d.Try() != 1 || string(d.Body) != "input" || !d.Spawned {
		t.Errorf("replayed as %+v", d.Envelope)
	}
	if _, err := queue.LoadResult(t.Context(), r.js, call); !errors.Is(err, queue.ErrNoResult) {
		t.Errorf("the old result is still there: %v", err)
	}
	if _, err := queue.LoadDead(t.Context(), r.nc, call); !errors.Is(err, queue.ErrNotDead) {
		t.Errorf("it is still dead: %v", err)
	}
}

func TestWhichCallsDie(t *testing.T) {
	for _, c := range []struct {
		kind           wire.Kind
		alone, spawned bool
	}{
		{wire.KindUser, false, true},
		{wire.KindTimeout, false, true},
		{wire.KindCrash, true, true},
		{wire.KindLost, true, true},
		{wire.KindInput, false, false},
		{wire.KindCancelled, false, false},
		{wire.KindExpired, false, false},
	} {
		for _, spawned := range []bool{false, true} {
			want := c.alone
			if spawned {
				want = c.spawned
			}
			if got := queue.Dead(queue.Envelope{Spawned: spawned}, &wire.Error{Kind: c.kind}); got != want {
				t.Errorf("%s, spawned %v: dead %v, want %v", c.kind, spawned, got, want)
			}
		}
	}
}

func TestBatchesAreFoundByTheirCalls(t *testing.T) {
	r := newRig(t)
	batch := queue.Batch{ID: queue.NewBatch(time.Now()), Function: function, Inputs: 3, Open: true, Spawned: time.Now().UTC(), Keep: time.Hour}
	call := queue.CallOfInput(batch.ID, 2)
	if _, err := queue.LoadBatch(t.Context(), r.nc, call); !errors.Is(err, queue.ErrNoBatch) {
		t.Fatalf("before it is there: %v", err)
	}
	for range 2 {
		batch.Inputs++
		if err := batch.Save(t.Context(), r.js); err != nil {
			t.Fatal(err)
		}
	}
	found, err := queue.LoadBatch(t.Context(), r.nc, call)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(batch, found, cmpopts.EquateApproxTime(0)); d != "" {
		t.Error(d)
	}
}

// TestValuesAreStoredOnce: an attempt that begins again yields what the first one did.
func TestValuesAreStoredOnce(t *testing.T) {
	r := newRig(t)
	store, err := queue.OpenStore(r.nc, "alloc-1")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	call, count := ulid.Make().String(), 3*queue.YieldWindow
	for _, many := range []int{count / 2, count} {
		values := store.Yields(t.Context(), call)
		for i := range many {
			if err := values.Put("text/plain", []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if stored, err := values.Flush(); err != nil || stored != many {
			t.Fatalf("%d stored, %v", stored, err)
		}
	}
	from, got := uint64(0), 0
	for got < count {
		list, after, err := queue.ReadValues(t.Context(), r.nc, call, from)
		if err != nil || len(list) == 0 {
			t.Fatalf("after %d values: %d more, %v", got, len(list), err)
		}
		for _, value := range list {
			if value.Index != got || value.Body[0] != byte(got) || value.ContentType != "text/plain" {
				t.Fatalf("value %d is %+v", got, value)
			}
			got++
		}
		from = after
	}
}

func TestPagesGoOnWhereTheLastOneEnded(t *testing.T) {
	r := newRig(t)
	batch := queue.NewBatch(time.Now())
	store, err := queue.OpenStore(r.nc, "alloc-1")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const count = 25
	for i := range int64(count) {
		if _, err := store.Put(t.Context(), queue.Result{Call: queue.CallOfInput(batch, i), Worker: "alloc-1", Attempt: 1}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Put(t.Context(), queue.Result{Call: ulid.Make().String(), Worker: "alloc-1", Attempt: 1}, ""); err != nil {
		t.Fatal(err)
	}
	query, seen := queue.Query{Stream: queue.ResultsStream, Subject: queue.BatchResults(batch), Limit: 10}, int64(0)
	for {
		page, err := queue.Read(t.Context(), r.nc, query)
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range page.Messages {
			if queue.InputOf(queue.CallOfResult(msg.Subject)) != seen || msg.Time.IsZero() {
				t.Fatalf("message %d is %+v", seen, msg)
			}
			seen++
			query.From = msg.Sequence + 1
		}
		if page.Pending != uint64(count-seen) {
			t.Errorf("%d pending after %d", page.Pending, seen)
		}
		if len(page.Messages) == 0 {
			break
		}
	}
	total, err := queue.Count(t.Context(), r.nc, queue.ResultsStream, queue.BatchResults(batch))
	if err != nil || total != count || seen != count {
		t.Errorf("read %d and counted %d, %v", seen, total, err)
	}
	if _, err := queue.Read(t.Context(), r.nc, queue.Query{Stream: "NONE", Subject: ">", Limit: 1}); !errors.Is(err, queue.ErrStream) {
		t.Errorf("a stream that is not there: %v", err)
	}
}
