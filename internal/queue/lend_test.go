package queue_test

import (
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
)

func TestLentSlotsAreNotForCalls(t *testing.T) {
	r := newRig(t)
	p := r.open(t, 2)
	loans := p.Loans()
	for i, want := range []bool{true, true, false} {
		if got := loans.Take(); got != want {
			t.Fatalf("slot %d of two was lent: %t", i+1, got)
		}
	}
	call := r.publish(t, 1)[0]
	eventually.True(t, "the call is here and waits", func() bool { return p.Busy() == 2 && !loans.Take() && r.depth(t) == 1 })
	loans.GiveBack()
	d := next(t, p)
	if d.Call != call || d.Attempt != 1 {
		t.Fatalf("call %s in attempt %d, want %s in its first", d.Call, d.Attempt, call)
	}
	if loans.Take() {
		t.Error("a slot was lent that the call has")
	}
	if err := d.Ack(); err != nil {
		t.Fatal(err)
	}
	if !loans.Take() || loans.Count() != 2 {
		t.Errorf("%d slots are lent, want 2", loans.Count())
	}
	loans.GiveBack()
	loans.GiveBack()
	r.publish(t, 1)
	next(t, p)
}

func TestACallDoesNotWaitLongForALentSlot(t *testing.T) {
	r := newRig(t)
	busy := r.open(t, 1)
	if !busy.Loans().Take() {
		t.Fatal("a free slot was not lent")
	}
	r.publish(t, 1)
	other := r.open(t, 1)
	began := time.Now()
	if d := next(t, other); time.Since(began) > 15*time.Second {
		t.Errorf("call %s came after %s", d.Call, time.Since(began))
	}
}

func TestDrainWaitsForLentSlots(t *testing.T) {
	r := newRig(t)
	p := r.open(t, 1)
	if !p.Loans().Take() {
		t.Fatal("a free slot was not lent")
	}
	r.publish(t, 1)
	drained := make(chan error, 1)
	go func() { drained <- p.Drain(t.Context()) }() // received below
	next(t, r.open(t, 1))                           // whatever waited for the slot
	select {
	case err := <-drained:
		t.Fatalf("drained with a slot lent: %v", err)
	default:
	}
	if p.Loans().Take() {
		t.Error("a slot was lent while it drains")
	}
	p.Loans().GiveBack()
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}
