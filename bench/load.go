package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// halfTime is how long a load is held, halfRounds how often ours and the floor's in turns.
	halfTime   = 3 * time.Second
	halfRounds = 3
	// onlineRate is how many calls a second an online function gets, few enough to leave the machine to a batch.
	onlineRate = 100
	onlineTime = 8 * time.Second
	// deepCount is how many calls wait in a batch; FRESHET_DEEP says another number.
	deepCount = 100_000
)

// atRate makes calls at their times, however long the others take, and counts each from the time that it was due.
func atRate(ctx context.Context, rate float64, during time.Duration, call func() error) (samples, error) {
	count := int(rate * during.Seconds())
	took, failed := make(samples, count), make([]error, count)
	var calls sync.WaitGroup
	began := time.Now()
	for i := range count {
		due := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
		}
		calls.Go(func() {
			failed[i] = call()
			took[i] = time.Since(due)
		})
	}
	calls.Wait()
	return took, errors.Join(append(failed, ctx.Err())...)
}

// halfLoad times calls at half the rate that 64 callers reach, beside the queue alone at the same rate.
func halfLoad(ctx context.Context, s *system, f *floors, r *report) error {
	web := newWeb()
	defer web.CloseIdleConnections()
	var idle sync.Pool // of callers of the floor
	kinds := []func() error{
		func() error {
			caller, ok := idle.Get().(*floorCaller)
			if !ok {
				var err error
				if caller, err = f.nats.newCaller(); err != nil {
					return err
				}
			}
			defer idle.Put(caller)
			return caller.call(ctx)
		},
		func() error { return s.post(ctx, web, "warm") },
	}
	var all [2]samples
	var tails [2][]float64
	for range halfRounds {
		rate, err := inParallel(64, rateCount, func(int) error { return kinds[1]() })
		if err != nil {
			return err
		}
		for i, call := range kinds {
			took, err := atRate(ctx, rate/2, halfTime, call)
			if err != nil {
				return err
			}
			all[i] = append(all[i], took...)
			tails[i] = append(tails[i], took.at(0.99)/took.at(0.5))
		}
	}
	r.add(times("half_load", all[1], all[0].at(0.5)))
	r.add(values("half_load_tail", "x", tails[1], slices.Max[[]float64], median(tails[0])))
	return nil
}

// besideDeep times calls to an online function alone, and while a deep batch of another function waits and runs.
func besideDeep(ctx context.Context, s *system, _ *floors, r *report) error {
	web := newWeb()
	defer web.CloseIdleConnections()
	post := func() error { return s.post(ctx, web, "warm") }
	if _, err := atRate(ctx, onlineRate, onlineTime/4, post); err != nil { // wakes what sleeps
		return err
	}
	alone, err := atRate(ctx, onlineRate, onlineTime, post)
	if err != nil {
		return err
	}
	count := deepCount
	if given, err := strconv.Atoi(os.Getenv("FRESHET_DEEP")); err == nil {
		count = given
	}
	batch, err := s.spawnMany(ctx, "later", count)
	if err != nil {
		return err
	}
	err = until(ctx, "the batch runs", func() (bool, error) {
		var view struct{ Finished int }
		err := s.get(ctx, "/v1/batches/"+batch, &view)
		return view.Finished > 0, err
	})
	if err != nil {
		return err
	}
	beside, err := atRate(ctx, onlineRate, onlineTime, post)
	if err != nil {
		return err
	}
	r.add(times("online_alone", alone, 0), times("online_beside_deep", beside, alone.at(0.5)))
	r.add(over(row{Name: "online_beside_deep_p99", Unit: "ms", P50: beside.at(0.99), N: count}, alone.at(0.99)))
	return nil
}

// spawnMany spawns a batch of calls and returns its id.
func (s *system) spawnMany(ctx context.Context, function string, count int) (string, error) {
	lines := bytes.Repeat(append(slices.Clone(input), '\n'), count)
	address := s.local.Gateway() + "/v1/functions/bench/" + function + "/batch"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(lines))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }() // read only
	var view struct{ Batch string }
	if err := json.NewDecoder(response.Body).Decode(&view); err != nil || response.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("spawn %d calls: %s: %w", count, response.Status, err)
	}
	return view.Batch, nil
}
