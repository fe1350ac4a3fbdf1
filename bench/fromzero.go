package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/queue"
)

const (
	thawRounds  = 15
	coldRounds  = 8
	nomadRounds = 12
)

// fromZero measures the first answer of a function without workers, and which part each component has in it.
func fromZero(ctx context.Context, s *system, _ *floors, r *report) error {
	nothing, err := s.noTask(ctx)
	if err != nil {
		return err
	}
	if _, err := s.startFromZero(ctx, "thaw"); err != nil { // makes the snapshot
		return err
	}
	var thaw parts
	for range thawRounds {
		start, err := s.startFromZero(ctx, "thaw")
		if err != nil {
			return err
		}
		if !start.thawed {
			return errors.New("a worker started cold although there is a snapshot")
		}
		thaw.add(start)
	}
	var cold parts
	for range coldRounds {
		start, err := s.startFromZero(ctx, "cold")
		if err != nil {
			return err
		}
		cold.add(start)
	}
	r.add(
		times("from_zero_thaw", thaw.total, nothing.at(0.5)), times("from_zero_cold", cold.total, nothing.at(0.5)),
		times("from_zero_nomad", append(thaw.nomad, cold.nomad...), nothing.at(0.5)),
		times("autoscaler_reaction", append(thaw.reaction, cold.reaction...), 0),
		times("worker_thaw", thaw.start, 0), times("worker_cold", cold.start, 0),
		times("floor_nomad", nothing, 0),
	)
	return nil
}

// start is one start from zero: from the call to its answer, and between.
type start struct {
	total time.Duration
	// reaction is from the call to the evaluation that the scaling made in Nomad, nomad from there to the driver's
	// StartTask, start from there to a worker that takes calls.
	reaction, nomad, start time.Duration
	thawed                 bool
}

type parts struct{ total, reaction, nomad, start samples }

func (p *parts) add(s start) {
	p.total, p.reaction = append(p.total, s.total), append(p.reaction, s.reaction)
	p.nomad, p.start = append(p.nomad, s.nomad), append(p.start, s.start)
}

func (s *system) startFromZero(ctx context.Context, function string) (start, error) {
	if err := s.awaitZero(ctx, "bench", function); err != nil {
		return start{}, err
	}
	called := time.Now()
	response, took, err := s.call(ctx, "bench."+function, input)
	if err != nil {
		return start{}, err
	}
	var worker queue.Heartbeat
	err = until(ctx, "the worker says that it is ready", func() (bool, error) { // the answer may come before its next heartbeat
		var err error
		worker, err = s.worker(ctx, response.Worker)
		return !worker.Ready.IsZero(), err
	})
	if err != nil {
		return start{}, err
	}
	alloc, _, err := s.nomad.Allocations().Info(response.Worker, nil)
	if err != nil {
		return start{}, fmt.Errorf("read allocation: %w", err)
	}
	evaluation, _, err := s.nomad.Evaluations().Info(alloc.EvalID, nil)
	if err != nil {
		return start{}, fmt.Errorf("read evaluation: %w", err)
	}
	scaled := time.Unix(0, evaluation.CreateTime)
	return start{
		total: took, reaction: scaled.Sub(called), nomad: worker.Started.Sub(scaled), start: worker.Ready.Sub(worker.Started),
		thawed: worker.Thawed,
	}, nil
}

// noTask measures what Nomad takes to start a task that does nothing: from the scaling to the task's start.
func (s *system) noTask(ctx context.Context) (samples, error) {
	const id, group = "floor", "nothing"
	job := &api.Job{
		ID: new(id), Name: new(id), Type: new("service"), Datacenters: []string{"*"},
		TaskGroups: []*api.TaskGroup{{
			Name: new(group), Count: new(0), Update: &api.UpdateStrategy{MaxParallel: new(0)},
			Tasks: []*api.Task{{
				Name: "nothing", Driver: "mock_driver", Config: map[string]any{"run_for": "1h"},
				LogConfig: &api.LogConfig{Disabled: new(true), MaxFiles: new(1), MaxFileSizeMB: new(1)},
			}},
		}},
	}
	write := (&api.WriteOptions{}).WithContext(ctx)
	if _, _, err := s.nomad.Jobs().Register(job, write); err != nil {
		return nil, fmt.Errorf("register a job that does nothing: %w", err)
	}
	var list samples
	for range nomadRounds {
		began := time.Now()
		if _, _, err := s.nomad.Jobs().Scale(id, group, new(1), "", false, nil, write); err != nil {
			return nil, fmt.Errorf("scale: %w", err)
		}
		var started time.Time
		err := until(ctx, "the task that does nothing runs", func() (ok bool, err error) {
			started, ok, err = s.startOf(ctx, id, began)
			return ok, err
		})
		if err != nil {
			return nil, err
		}
		list = append(list, started.Sub(began))
		if _, _, err := s.nomad.Jobs().Scale(id, group, new(0), "", false, nil, write); err != nil {
			return nil, fmt.Errorf("scale: %w", err)
		}
	}
	_, _, err := s.nomad.Jobs().Deregister(id, true, write)
	return list, err
}

// startOf finds when the job's newest task started, once it did after the given time.
func (s *system) startOf(ctx context.Context, job string, after time.Time) (time.Time, bool, error) {
	allocs, _, err := s.nomad.Jobs().Allocations(job, false, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return time.Time{}, false, fmt.Errorf("list allocations: %w", err)
	}
	for _, alloc := range allocs {
		for _, task := range alloc.TaskStates {
			for _, event := range task.Events {
				if at := time.Unix(0, event.Time); event.Type == api.TaskStarted && at.After(after) {
					return at, true, nil
				}
			}
		}
	}
	return time.Time{}, false, nil
}

const (
	searchColds = 2
	searchThaws = 4
)

// thawAgainstCold measures gosearch, whose enter hook takes seconds. Each cold start is of a deploy that nothing frozen fits.
func thawAgainstCold(ctx context.Context, s *system, _ *floors, r *report) error {
	var cold, thaw samples
	search := func() (time.Duration, error) {
		if err := s.awaitZero(ctx, "gosearch", "search"); err != nil {
			return 0, err
		}
		_, took, err := s.call(ctx, "gosearch.search", []byte(`{"q":"http server"}`))
		return took, err
	}
	for round := range searchColds {
		if err := s.freshet(ctx, "deploy", "examples/gosearch", "--env", "GOSEARCH_ROUND="+strconv.Itoa(round)); err != nil {
			return err
		}
		took, err := search()
		if err != nil {
			return err
		}
		cold = append(cold, took)
	}
	for range searchThaws {
		took, err := search()
		if err != nil {
			return err
		}
		thaw = append(thaw, took)
	}
	var ratios []float64
	for _, took := range thaw {
		ratios = append(ratios, cold.at(0)/millis(took))
	}
	r.add(times("gosearch_cold", cold, 0), times("gosearch_thaw", thaw, 0), values("thaw_vs_cold", "times", ratios, slices.Min[[]float64], 0))
	return nil
}
