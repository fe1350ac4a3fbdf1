package autoscaler

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
)

// stall is how long a call at zero may take, on a machine that is busy with other things too: what is slower waited for the end of a
// rest, which lasts ten seconds.
const stall = 9 * time.Second

// TestACallRightAtZeroIsAnswered: a function goes to zero, and a call comes in that very moment, some milliseconds after the count fell
// or about when it will.
func TestACallRightAtZeroIsAnswered(t *testing.T) {
	t.Parallel()
	functions := []string{"zero0", "zero1", "zero2", "zero3", "zero4", "zero5"}
	rounds := (often(t, 42) + len(functions) - 1) / len(functions)
	c := client.New(shared.state.Gateway())
	var running sync.WaitGroup
	var mu sync.Mutex
	var times []time.Duration
	again := 0
	for _, function := range functions {
		running.Go(func() {
			for round := range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				began := time.Now()
				got, err := wait(ctx, c, function, 0)
				took := time.Since(began)
				if err != nil {
					t.Errorf("a call at zero: %v", err)
				}
				if took > stall {
					t.Errorf("a call of %s at %s took %s, attempt %d by %s", function, began.Format(time.RFC3339Nano), took, got.Attempt, got.Worker)
				}
				mu.Lock()
				times = append(times, took)
				if got.Attempt > 1 {
					again++
				}
				mu.Unlock()
				pause := time.Duration(1000+rand.IntN(700)) * time.Millisecond // the window is one second, and looked at four times a second
				if round%4 > 0 {
					awaitZero(ctx, t, function)
					pause = time.Duration(rand.IntN(20)) * time.Millisecond
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
				cancel()
			}
		})
	}
	running.Wait()
	slices.Sort(times)
	t.Logf("%d calls answered, %d of them delivered again, p50 %s, p99 %s, the slowest in %s",
		len(times), again, times[len(times)/2], times[len(times)*99/100], times[len(times)-1])
}

// awaitZero returns in the milliseconds in which the function's count falls to zero.
func awaitZero(ctx context.Context, t *testing.T, function string) {
	query := &api.QueryOptions{WaitTime: time.Second}
	for {
		job, meta, err := shared.nomad.Jobs().Info("scaled."+function, query.WithContext(ctx))
		if err != nil {
			t.Errorf("wait for zero: %v", err)
			return
		}
		if *job.TaskGroups[0].Count == 0 {
			return
		}
		query.WaitIndex = meta.LastIndex
	}
}

// TestAWorkerThatNomadKeptGoesOn: a burst can come between the end of a count and Nomad's look at it. Nomad then sees nothing to do and
// keeps the worker, which was told to rest; it is to take the call at once and not when the rest is over.
func TestAWorkerThatNomadKeptGoesOn(t *testing.T) {
	c := client.New(shared.state.Gateway())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	first, err := wait(ctx, c, "zero0", 0)
	if err != nil {
		t.Fatal(err)
	}
	pause := func(paused bool) {
		if _, _, err := shared.nomad.Operator().SchedulerSetConfiguration(&api.SchedulerConfiguration{PauseEvalBroker: paused}, nil); err != nil {
			t.Error(err)
		}
	}
	defer pause(false)
	pause(true)
	awaitZero(ctx, t, "zero0")
	type answer struct {
		told
		err error
	}
	answers := make(chan answer, 1)
	var calling sync.WaitGroup
	defer calling.Wait()
	calling.Go(func() {
		second, err := wait(ctx, c, "zero0", 0)
		answers <- answer{second, err}
	})
	eventually.True(t, "the count rose again", func() bool { return count(t, "zero0") == 1 })
	pause(false)
	began := time.Now()
	second := <-answers
	took := time.Since(began)
	if second.err != nil || second.Worker != first.Worker {
		t.Errorf("got %+v, %v, want an answer of worker %s", second, second.err, first.Worker)
	}
	t.Logf("answered %s after Nomad went on", took)
	if took > stall {
		t.Errorf("answered only %s after Nomad went on", took)
	}
}
