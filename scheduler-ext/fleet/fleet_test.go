package fleet_test

import (
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/fleet"
)

var function = queue.Function{Namespace: "default", App: "app", Name: "f"}

func beat(alloc string, state queue.State, busy int, done int64) queue.Heartbeat {
	return queue.Heartbeat{Namespace: "default", App: "app", Function: "f", Alloc: alloc, State: state, Slots: 4, Busy: busy, Done: done}
}

func TestServiceTimeIsBusyTimeOverCalls(t *testing.T) {
	f, now := fleet.New(), time.Unix(1000, 0)
	f.Hear(beat("a", queue.StateReady, 0, 0), now)
	for second := range 1000 { // two calls at once, of 4 s each
		now = now.Add(time.Second)
		f.Hear(beat("a", queue.StateBusy, 2, int64(second/2)), now)
	}
	if got := f.View(function).Service; got < 3900*time.Millisecond || got > 4100*time.Millisecond {
		t.Errorf("service time %s, want 4s", got)
	}
	for second := range 300 { // then of 500 ms
		now = now.Add(time.Second)
		f.Hear(beat("a", queue.StateBusy, 2, 500+int64(4*second)), now)
	}
	if got := f.View(function).Service; got < 490*time.Millisecond || got > 600*time.Millisecond {
		t.Errorf("service time %s, want 500ms", got)
	}
}

func TestStatesAndSilence(t *testing.T) {
	f, now := fleet.New(), time.Unix(1000, 0)
	f.Hear(beat("a", queue.StateReady, 0, 0), now)
	f.Hear(beat("b", queue.StateBusy, 3, 0), now)
	f.Hear(beat("c", queue.StateStarting, 0, 0), now)
	resting := beat("d", queue.StateDraining, 1, 0)
	resting.Resting = true
	f.Hear(resting, now)
	if got := f.View(function); got.Workers != 4 || got.Ready != 2 || got.Resting != 1 || got.Busy != 4 {
		t.Errorf("got %+v", got)
	}
	f.Hear(beat("a", queue.StateReady, 0, 0), now.Add(5*time.Second))
	f.Bury(now.Add(time.Second))
	if got := f.View(function); got.Workers != 1 {
		t.Errorf("%d workers are left, want the one that was heard", got.Workers)
	}
}

func TestFailuresCountUntilAStartSucceeds(t *testing.T) {
	f, now := fleet.New(), time.Unix(1000, 0)
	fail := func(alloc, reason string) {
		f.Hear(beat(alloc, queue.StateStarting, 0, 0), now)
		stopped := beat(alloc, queue.StateStopped, 0, 0)
		stopped.Reason = reason
		f.Hear(stopped, now)
	}
	fail("a", "no such module")
	fail("b", "context canceled")
	fail("c", "no such file")
	f.Failed(function, "c", "Nomad saw it too")
	f.Failed(function, "x", "no such image")
	f.Failed(function, "x", "no such image, told again")
	if got := f.View(function); got.Failures != 3 || got.Failure != "no such image" {
		t.Errorf("got %+v", got)
	}
	ready := beat("d", queue.StateReady, 0, 0)
	ready.Started, ready.Ready = now, now.Add(2*time.Second)
	f.Hear(ready, now)
	if got := f.View(function); got.Failures != 0 || got.Start != 2*time.Second {
		t.Errorf("got %+v", got)
	}
	stopped := beat("d", queue.StateStopped, 0, 0)
	stopped.Reason = "crashed later"
	f.Hear(stopped, now)
	fail("e", "again")
	next := beat("g", queue.StateStarting, 0, 0)
	next.Version = "2"
	f.Hear(next, now)
	if got := f.View(function); got.Failures != 0 {
		t.Errorf("a new version has %d failures", got.Failures)
	}
}
