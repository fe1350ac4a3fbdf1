package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

const (
	// warmTurns is how many calls are made in turns with their floors, and warmStreak how many in a row.
	warmTurns  = 2000
	warmStreak = 1000
	warmUp     = 200
)

// warmKind is a call or one of its floors; run makes some in a row.
type warmKind struct {
	name string
	run  func(n int) (samples, error)
}

// warmCalls measures calls and their floors in two ways. In turns, one of each after the other: each part then wakes from
// the rest that the others' work gives it, as it does in a call, which passes through all of them. And in a row, where each
// has the machine for itself and nothing sleeps: the least that it can take.
func warmCalls(ctx context.Context, s *system, f *floors, r *report) error {
	web := newWeb()
	defer web.CloseIdleConnections()
	kinds := []warmKind{
		{"floor_http", func(n int) (samples, error) { return f.roundTrips(ctx, web, n) }},
		{"floor_nats", func(n int) (samples, error) { return f.nats.roundTrips(ctx, n) }},
		{"floor_pipe", f.pipe.roundTrips},
		{"warm_call", func(n int) (samples, error) {
			return repeat(n, func() error { return s.post(ctx, web, "warm") })
		}},
		{"warm_call_sdk", func(n int) (samples, error) {
			return repeat(n, func() error { _, _, err := s.call(ctx, "bench.warm", input); return err })
		}},
	}
	for _, kind := range kinds {
		if _, err := kind.run(warmUp); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	turns, streaks := make(map[string]samples), make(map[string]samples)
	for range warmTurns {
		if err := addTurn(turns, kinds, 1); err != nil {
			return err
		}
	}
	if err := addTurn(streaks, kinds, warmStreak); err != nil {
		return err
	}
	r.add(times("warm_call", turns["warm_call"], floorOf(turns)), times("warm_call_sdk", turns["warm_call_sdk"], floorOf(turns)))
	r.add(times("warm_call_in_a_row", streaks["warm_call"], floorOf(streaks)))
	for _, kind := range kinds[:3] {
		r.add(times(kind.name, turns[kind.name], 0), times(kind.name+"_in_a_row", streaks[kind.name], 0))
	}
	return nil
}

// floorOf is what the parts of a call take by themselves.
func floorOf(of map[string]samples) float64 {
	return of["floor_http"].at(0.5) + of["floor_nats"].at(0.5) + of["floor_pipe"].at(0.5)
}

func addTurn(to map[string]samples, kinds []warmKind, n int) error {
	for _, kind := range kinds {
		took, err := kind.run(n)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		to[kind.name] = append(to[kind.name], took...)
	}
	return nil
}

func newWeb() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
}

// repeat times some calls in a row.
func repeat(n int, call func() error) (samples, error) {
	s := make(samples, 0, n)
	for range n {
		began := time.Now()
		if err := call(); err != nil {
			return s, err
		}
		s = append(s, time.Since(began))
	}
	return s, nil
}

const (
	rateRounds = 5
	rateCount  = 4096
)

func rates(ctx context.Context, s *system, f *floors, r *report) error {
	web := newWeb()
	defer web.CloseIdleConnections()
	for _, inFlight := range []int{1, 16, 64} {
		count := min(rateCount, 512*inFlight)
		var ours, floor []float64
		for range rateRounds {
			rate, err := f.nats.rate(ctx, inFlight, count)
			if err != nil {
				return err
			}
			floor = append(floor, rate)
			rate, err = inParallel(inFlight, count, func(int) error { return s.post(ctx, web, "warm") })
			if err != nil {
				return err
			}
			ours = append(ours, rate)
		}
		r.add(values(fmt.Sprintf("rate_%d", inFlight), "calls/s", ours, slices.Min[[]float64], median(floor)))
	}
	return nil
}
