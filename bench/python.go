package main

import (
	"context"
	"errors"
	"os"
)

// pythonKinds are the functions of bench/python: one call at a time, several in threads, and several on an event loop.
func pythonKinds() []string { return []string{"warm", "threads", "many"} }

// pythonCalls measures calls of functions in Python in turns with the same one in Go, which is their floor.
func pythonCalls(ctx context.Context, s *system, _ *floors, r *report) error {
	image := os.Getenv("FRESHET_PYTHON_IMAGE")
	if image == "" {
		return errors.New("FRESHET_PYTHON_IMAGE must name an image's archive: use `make bench`")
	}
	if err := s.freshet(ctx, "deploy", "bench/python/app.py", "--image", "docker-archive:"+image); err != nil {
		return err
	}
	web := newWeb()
	defer web.CloseIdleConnections()
	kinds := []warmKind{{"go", func(n int) (samples, error) {
		return repeat(n, func() error { return s.post(ctx, web, "warm") })
	}}}
	for _, name := range pythonKinds() {
		kinds = append(kinds, warmKind{name, func(n int) (samples, error) {
			return repeat(n, func() error { return s.postTo(ctx, web, "benchpy", name) })
		}})
	}
	for _, kind := range kinds {
		if err := until(ctx, kind.name+" answers", func() (bool, error) { _, err := kind.run(1); return err == nil, nil }); err != nil {
			return err
		}
		if _, err := kind.run(warmUp); err != nil {
			return err
		}
	}
	turns := make(map[string]samples)
	for range warmTurns {
		if err := addTurn(turns, kinds, 1); err != nil {
			return err
		}
	}
	for _, name := range pythonKinds() {
		r.add(times("python_"+name, turns[name], turns["go"].at(0.5)))
	}
	rate, err := inParallel(64, rateCount, func(int) error { return s.postTo(ctx, web, "benchpy", "many") })
	if err != nil {
		return err
	}
	floor, err := inParallel(64, rateCount, func(int) error { return s.post(ctx, web, "warm") })
	if err != nil {
		return err
	}
	r.add(values("python_rate_64", "calls/s", []float64{rate}, func(list []float64) float64 { return list[0] }, floor))
	return nil
}
