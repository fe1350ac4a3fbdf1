//go:build long

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/test/clustertest"
)

// perRound is how many items of the map are for each kill.
const perRound = 1500

// TestRestartsLoseAndLeaveNothing kills the plugin and the Nomad agent in turns while calls flow and workers come and go: each call is
// answered once, by its own answer, and in the end the node has what it had before.
func TestRestartsLoseAndLeaveNothing(t *testing.T) {
	rounds := long(4, 20)
	before := begin(t, "slow", "online")
	run := shared.Map(t, app+".slow", rounds*perRound)
	asking := ask(t, "online")
	for round := range rounds {
		run.Until(t, round*perRound+perRound/2)
		if round%2 == 0 {
			pid := shared.Plugin(t)
			kill(t, pid)
			eventually.True(t, "there is another plugin", func() bool { return shared.Plugin(t) != pid })
		} else {
			pid := shared.Agent(t)
			kill(t, pid)
			eventually.True(t, "there is another agent", func() bool { return shared.Agent(t) != pid })
			healthy(t)
		}
	}
	run.Check(t)
	count := asking.stop(t)
	after := await(t, before, "slow", "online")
	t.Logf("%d kills, %d items and %d calls answered once each; before: %s; after: %s", rounds, rounds*perRound, count, before, after)
}

// asker makes one call after another.
type asker struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
	count   int
	wrong   []string
}

func ask(t *testing.T, function string) *asker {
	t.Helper()
	a := &asker{}
	ctx, cancel := context.WithCancel(t.Context())
	a.cancel = cancel
	a.running.Go(func() {
		for ctx.Err() == nil {
			text := fmt.Sprintf("call %d", a.count)
			answer, err := tell(t, function, "say", text)
			if err != nil || answer.Said != text {
				a.wrong = append(a.wrong, fmt.Sprintf("%s was answered %+v, %v", text, answer, err))
			}
			a.count++
		}
	})
	return a
}

// stop ends the asking and returns how many calls there were.
func (a *asker) stop(t *testing.T) int {
	t.Helper()
	a.cancel()
	a.running.Wait()
	if len(a.wrong) > 0 {
		t.Errorf("%d of %d calls went wrong, such as: %s", len(a.wrong), a.count, a.wrong[0])
	}
	return a.count
}

// begin has another plugin, which keeps nothing ahead for what was tested before, and brings the node to rest.
func begin(t *testing.T, functions ...string) clustertest.Inventory {
	t.Helper()
	pid := shared.Plugin(t)
	kill(t, pid)
	eventually.True(t, "there is another plugin", func() bool { return shared.Plugin(t) != pid })
	healthy(t)
	return rest(t, functions...)
}

// rest has each function answer twice, from zero, and takes the inventory of the node when no worker is left and a standby of each
// is there.
func rest(t *testing.T, functions ...string) clustertest.Inventory {
	t.Helper()
	for _, function := range functions {
		shared.AwaitIdle(t, app, function) // an answer from zero needs a start, of which the plugin that there is now knows
	}
	for range 2 { // the first one may leave a snapshot that a standby is thawed from
		for _, function := range functions {
			mustSay(t, function)
		}
		for _, function := range functions {
			shared.AwaitIdle(t, app, function)
			awaitStandby(t, function)
		}
	}
	collect(t)
	last := shared.Take(t)
	eventually.True(t, "the node is at rest", func() bool {
		now := shared.Take(t)
		same := len(last.Diff(now)) == 0
		last = now
		return same
	})
	return last
}

// collect has Nomad drop what it keeps of tasks that ended, such as the mounts of their secrets.
func collect(t *testing.T) {
	t.Helper()
	nodes, _, err := shared.nomad.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Status != "ready" {
			continue
		}
		if err := shared.nomad.Nodes().GC(n.ID, nil); err != nil && !errors.Is(err, io.EOF) { // it expects an answer that Nomad has not
			t.Fatal(err)
		}
	}
}

// await brings the node to rest, and waits until it has what it had before.
func await(t *testing.T, before clustertest.Inventory, functions ...string) clustertest.Inventory {
	t.Helper()
	after := rest(t, functions...)
	var diff []string
	defer func() {
		for _, line := range diff {
			t.Errorf("left behind: %s", line)
		}
	}()
	eventually.True(t, "the node has what it had before", func() bool {
		after = shared.Take(t)
		diff = before.Diff(after)
		return len(diff) == 0
	})
	return after
}
