package storm

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// seedEnv names the seed of a storm that is to come again.
const seedEnv = "FRESHET_STORM_SEED"

// TestNoCallIsLostInAStorm: while everything is killed, stopped and parted by chance, calls of every way are made. Each that was accepted
// ends in exactly one recorded outcome, the one that its caller was told, and nothing is left on the nodes.
func TestNoCallIsLostInAStorm(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("%s=%d", seedEnv, seed)
	length, pause := 25*time.Second, time.Second
	s := &storm{world: shared, t: t, random: rand.New(rand.NewPCG(seed, 1)), least: time.Second, most: 6 * time.Second}
	if os.Getenv(longEnv) != "" {
		length, pause, s.most = 10*time.Minute, 4*time.Second, 12*time.Second
	}
	storming, calm := context.WithCancel(t.Context())
	defer calm()
	calls := newTraffic(seed)
	calls.start(storming)
	s.rage(length, pause)
	calm()
	began := time.Now()
	calls.done.Wait()
	t.Logf("%s after the storm every caller is answered", time.Since(began).Round(time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := shared.settle(ctx); err != nil {
		t.Error(err)
	}
	t.Logf("%s after the storm no call is left", time.Since(began).Round(time.Millisecond))
	outcomes := calls.check(ctx, shared.js)
	t.Logf("%s after the storm all are checked", time.Since(began).Round(time.Millisecond))
	diary, err := shared.readDiary()
	if err != nil {
		t.Fatal(err)
	}
	attempts, overlaps := calls.checkDiary(diary, s.all)
	ways, kinds := make(tally), make(tally)
	for _, a := range calls.calls {
		ways[a.way]++
	}
	for _, f := range s.all {
		kinds[f.kind]++
	}
	t.Logf("%d accepted calls: %s", len(calls.calls), ways)
	t.Logf("outcomes: %s", outcomes)
	t.Logf("%d faults: %s", len(s.all), kinds)
	t.Logf("attempts: %s; %d times two workers ran a call at once; %d requests were sent again", attempts, overlaps, calls.again)
	for i, text := range calls.innocent {
		t.Logf("failed without fault: %s", text)
		if i > 20 {
			break
		}
	}
	for i, text := range calls.wrong {
		if t.Error(text); i > 50 {
			t.Fatalf("and %d more", len(calls.wrong)-i)
		}
	}
	shared.awaitNothingLeft(t)
	t.Logf("%s after the storm nothing is left", time.Since(began).Round(time.Millisecond))
}
