package autoscaler

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
)

// often is how many times a test repeats what is a matter of chance; FRESHET_ROUNDS makes it more.
func often(t *testing.T, usual int) int {
	t.Helper()
	if text := os.Getenv("FRESHET_ROUNDS"); text != "" {
		rounds, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("FRESHET_ROUNDS: %v", err)
		}
		return rounds
	}
	return usual
}

// TestScaleInCutsNobodyShort: load that comes and goes, with calls of 0.1 to 10 s, or to 60 s where it runs often, so that workers are
// taken away again and again while others are busy. Each call runs once and to its end.
func TestScaleInCutsNobodyShort(t *testing.T) {
	t.Parallel() // with those that call other functions and change nothing of the cluster
	want, longest, rare := int64(often(t, 20)), 10*time.Second, 20
	if want >= 100 {
		longest, rare = time.Minute, 150
	}
	functions := []string{"a", "b", "c", "d"}
	c := client.New(shared.state.Gateway())
	falls := atomic.Int64{}
	var calls, long, again atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	for _, function := range functions {
		running.Go(func() { watchFalls(ctx, t, function, &falls) })
		running.Go(func() {
			var flying sync.WaitGroup
			for ctx.Err() == nil { // some calls at once, then a pause
				for range 1 + rand.IntN(14) {
					length := time.Duration(100+rand.IntN(2500)) * time.Millisecond
					if rand.IntN(rare) == 0 {
						length = longest/3 + rand.N(longest*2/3)
					}
					flying.Go(func() {
						calls.Add(1)
						if length >= longest/3 {
							long.Add(1)
						}
						got, err := wait(context.WithoutCancel(ctx), c, function, length)
						if err != nil {
							t.Errorf("a call of %s: %v", length, err)
							return
						}
						if got.Millis < length.Milliseconds() {
							t.Errorf("a call of %s ended after %d ms", length, got.Millis)
						}
						if got.Attempt != 1 {
							again.Add(1)
						}
					})
				}
				select {
				case <-time.After(time.Duration(1500+rand.IntN(3500)) * time.Millisecond):
				case <-ctx.Done():
				}
			}
			flying.Wait()
		})
	}
	deadline := time.Now().Add(time.Duration(want)*20*time.Second + patience)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for falls.Load() < want && time.Now().Before(deadline) {
		<-ticker.C
	}
	cancel()
	running.Wait()
	t.Logf("%d calls, %d of them of %s to %s and %d delivered twice, while workers were taken away %d times",
		calls.Load(), long.Load(), longest/3, longest, again.Load(), falls.Load())
	if falls.Load() < want {
		t.Errorf("workers were taken away only %d times, want %d", falls.Load(), want)
	}
	if again.Load() > 0 {
		t.Errorf("%d calls were delivered twice", again.Load())
	}
	for _, function := range functions {
		eventually.True(t, function+" has no workers in the end", func() bool { return count(t, function) == 0 })
	}
}

// watchFalls counts how often a function's count is lowered.
func watchFalls(ctx context.Context, t *testing.T, function string, falls *atomic.Int64) {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	last := uint64(0)
	for {
		newest := last
		for _, event := range scalings(t, function) {
			if event.CreateIndex <= last || event.Count == nil {
				continue
			}
			newest = max(newest, event.CreateIndex)
			if *event.Count < event.PreviousCount && last > 0 {
				falls.Add(1)
			}
		}
		last = max(newest, 1)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
