package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// modelled is a call as the model has it: the whole of the queue's semantics in a few fields.
type modelled struct {
	id        string
	attempts  int             // deliveries so far
	held      *queue.Delivery // by a worker
	settled   bool            // off the queue
	outcome   string          // the one recorded, empty while there is none
	cancelled bool
}

// machine drives the real queue and the model side by side.
type machine struct {
	rig      *rig
	function queue.Function
	puller   *queue.Puller
	store    *queue.Store
	calls    []*modelled
	batch    string
}

func (m *machine) message(t *rapid.T, c *modelled) *nats.Msg {
	msg, err := queue.Envelope{Function: m.function, Call: c.id, Published: time.Now(), Body: []byte(c.id)}.Message()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// pick draws a call that the condition is true of; the action does not apply when there is none.
func (m *machine) pick(t *rapid.T, condition func(*modelled) bool) *modelled {
	var fit []*modelled
	for _, c := range m.calls {
		if condition(c) {
			fit = append(fit, c)
		}
	}
	if len(fit) == 0 {
		t.Skip("no such call")
	}
	return rapid.SampledFrom(fit).Draw(t, "call")
}

// publish adds a call, or one that is there already: then nothing changes.
func (m *machine) publish(t *rapid.T) {
	if len(m.calls) > 0 && rapid.Bool().Draw(t, "again") {
		c := rapid.SampledFrom(m.calls).Draw(t, "call")
		if _, err := m.rig.js.PublishMsg(context.Background(), m.message(t, c)); err != nil {
			t.Fatal(err)
		}
		return
	}
	c := &modelled{id: queue.CallOfInput(m.batch, int64(len(m.calls)))}
	if _, err := m.rig.js.PublishMsg(context.Background(), m.message(t, c)); err != nil {
		t.Fatal(err)
	}
	m.calls = append(m.calls, c)
}

const modelSlots = 3

func (m *machine) holding() (held, waiting int) {
	for _, c := range m.calls {
		switch {
		case c.held != nil:
			held++
		case !c.settled:
			waiting++
		}
	}
	return held, waiting
}

// take waits for a delivery where the model says that one must come.
func (m *machine) take(t *rapid.T) {
	held, waiting := m.holding()
	if held == modelSlots || waiting == 0 {
		t.Skip("nothing is to come")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	d, err := m.puller.Next(ctx)
	if err != nil {
		t.Fatalf("no delivery, though %d calls wait and %d of %d slots are in use: %v", waiting, held, modelSlots, err)
	}
	at := slices.IndexFunc(m.calls, func(c *modelled) bool { return c.id == d.Call })
	if at < 0 || m.calls[at].held != nil || m.calls[at].settled {
		t.Fatalf("delivered %s, which is not waiting", d.Call)
	}
	c := m.calls[at]
	c.attempts++
	if d.Attempt != c.attempts || string(d.Body) != c.id {
		t.Fatalf("%s is attempt %d with %q, want %d", c.id, d.Attempt, d.Body, c.attempts)
	}
	if !c.cancelled && isCancelled(d) {
		t.Fatalf("%s says that it is cancelled", c.id)
	}
	c.held = d
	c.checkTold(t)
}

// end stores an outcome, which stands when it is the first, and takes the call off the queue.
func (m *machine) end(t *rapid.T) {
	c := m.pick(t, func(c *modelled) bool { return c.held != nil })
	outcome := fmt.Sprint("attempt ", c.attempts)
	stands, err := m.store.Put(context.Background(), queue.Result{Call: c.id, Attempt: c.attempts, Worker: "alloc-1", Body: []byte(outcome)}, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.outcome == "" {
		c.outcome = outcome
	}
	m.checkOutcome(t, c, stands)
	if rapid.Bool().Draw(t, "dies before it acknowledges") {
		c.giveBack(t)
		return
	}
	if err := c.held.Ack(); err != nil {
		t.Fatal(err)
	}
	c.held, c.settled = nil, true
}

func (c *modelled) giveBack(t *rapid.T) {
	if err := c.held.Return(0); err != nil {
		t.Fatal(err)
	}
	c.held = nil
}

func (m *machine) giveBack(t *rapid.T) {
	m.pick(t, func(c *modelled) bool { return c.held != nil }).giveBack(t)
}

// cancel records the outcome, unless there is one, and tells whoever holds the call.
func (m *machine) cancel(t *rapid.T) {
	c := m.pick(t, func(*modelled) bool { return true })
	stands, err := queue.End(context.Background(), m.rig.js, queue.Result{Call: c.id, Error: &wire.Error{Kind: wire.KindCancelled}})
	if err != nil {
		t.Fatal(err)
	}
	if c.outcome == "" {
		c.outcome = string(wire.KindCancelled)
	}
	m.checkOutcome(t, c, stands)
	if err := queue.Cancel(context.Background(), m.rig.js, m.function, c.id); err != nil {
		t.Fatal(err)
	}
	c.cancelled = true
	c.checkTold(t)
}

// checkTold waits until who holds a cancelled call hears of it: the word and the call travel apart.
func (c *modelled) checkTold(t *rapid.T) {
	if c.held == nil || !c.cancelled {
		return
	}
	select {
	case <-c.held.Cancelled():
	case <-time.After(10 * time.Second):
		t.Fatalf("whoever holds %s is not told that it is cancelled", c.id)
	}
}

func (m *machine) checkOutcome(t *rapid.T, c *modelled, r queue.Result) {
	got := string(r.Body)
	if r.Error != nil {
		got = string(r.Error.Kind)
	}
	if got != c.outcome {
		t.Fatalf("%s ended as %q, want %q", c.id, got, c.outcome)
	}
}

// check compares what is stored with the model.
func (m *machine) check(t *rapid.T) {
	held, waiting := m.holding()
	depth, err := queue.Depth(context.Background(), m.rig.js, m.function)
	for until := time.Now().Add(10 * time.Second); err == nil && depth != int64(held+waiting) && time.Now().Before(until); { // an acknowledgement is on its way
		depth, err = queue.Depth(context.Background(), m.rig.js, m.function)
	}
	if err != nil || depth != int64(held+waiting) {
		t.Fatalf("depth %d, %v, want %d", depth, err, held+waiting)
	}
	for _, c := range m.calls {
		result, err := queue.LoadResult(context.Background(), m.rig.js, c.id)
		if c.outcome == "" {
			if !errors.Is(err, queue.ErrNoResult) {
				t.Fatalf("%s has a result %+v, %v", c.id, result, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		m.checkOutcome(t, c, result)
	}
}

// TestQueueDoesAsItsModel: whatever is published, taken, given back, ended twice and cancelled, in any order.
func TestQueueDoesAsItsModel(t *testing.T) {
	r := newRig(t)
	store, err := queue.OpenStore(r.nc, "alloc-1")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m := &machine{
			rig: r, store: store, batch: queue.NewBatch(time.Now()),
			function: queue.Function{Namespace: "default", App: "model", Name: fmt.Sprint("run", run)},
		}
		if m.puller, err = queue.OpenPuller(context.Background(), r.nc, m.function, modelSlots, zerolog.Nop()); err != nil {
			t.Fatal(err)
		}
		defer m.puller.Close()
		if err := m.puller.Start(); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": m.publish, "take": m.take, "end": m.end, "give back": m.giveBack, "cancel": m.cancel, "": m.check,
		})
	})
}
