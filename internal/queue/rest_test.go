package queue_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
)

// TestPauseGivesNothingBack: a worker that rests and pulls again in the middle of traffic, again and again, and no call is
// delivered twice. The server counts a delivery that no longer found its pull's subscriber, and gives that call to the next
// pull, so an attempt's number may be 2; nobody saw the first.
func TestPauseGivesNothingBack(t *testing.T) {
	r := newRig(t)
	const calls = 2000
	var mu sync.Mutex
	seen := make(map[string]int)
	ctx, cancel := context.WithCancel(t.Context())
	var taking sync.WaitGroup
	defer func() { cancel(); taking.Wait() }()
	var pullers []*queue.Puller
	for range 2 {
		p, err := queue.OpenPuller(t.Context(), r.nc, function, 4, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		pullers = append(pullers, p)
		taking.Go(func() {
			for {
				d, err := p.Next(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				seen[d.Call]++
				mu.Unlock()
				_ = d.Ack()
			}
		})
	}
	var publishing sync.WaitGroup
	publishing.Go(func() { r.publish(t, calls) })
	rests := 0
	for len(done(&mu, seen)) < calls {
		select {
		case <-pullers[0].Pause():
		case <-time.After(patience):
			t.Fatal("calls stay on their way for ever")
		}
		rests++
		if pullers[0].Pause() != nil {
			t.Fatal("it paused twice")
		}
		eventually.True(t, "the calls it has end", func() bool { return pullers[0].Busy() == 0 })
		if err := pullers[0].Resume(); err != nil {
			t.Fatal(err)
		}
	}
	publishing.Wait()
	for call, times := range done(&mu, seen) {
		if times != 1 {
			t.Errorf("call %s was delivered %d times", call, times)
		}
	}
	t.Logf("%d rests", rests)
}

const patience = 10 * time.Second

func done(mu *sync.Mutex, seen map[string]int) map[string]int {
	mu.Lock()
	defer mu.Unlock()
	all := make(map[string]int, len(seen))
	for call, times := range seen {
		all[call] = times
	}
	return all
}

func TestAPausedPullerTakesNothingUntilItResumes(t *testing.T) {
	r := newRig(t)
	p, err := queue.OpenPuller(t.Context(), r.nc, function, 1, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Pause() // before it starts, as a worker that is asked to rest while it boots
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	r.publish(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := p.Next(ctx); err == nil {
		t.Fatal("it took a call")
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := p.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Ack(); err != nil {
		t.Fatal(err)
	}
}
