// Package jobs is freshet's view of Nomad: functions are jobs, read from Nomad's API and followed through its event stream. There
// is no other record of functions.
package jobs

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Meta keys of a function's job.
const (
	MetaApp      = "freshet.app"
	MetaFunction = "freshet.function"
	MetaVersion  = "freshet.version"
)

// Driver is the name of the task driver.
const Driver = "freshet"

// ErrNotFunction says that the job is somebody else's.
var ErrNotFunction = errors.New("not a function's job")

// Function reads a function's spec out of its job, with defaults set: ErrNotFunction for other jobs, and an error that names
// the field for a function's job that is wrong.
func Function(job *api.Job) (spec.Function, error) {
	app, name := job.Meta[MetaApp], job.Meta[MetaFunction]
	if app == "" || name == "" {
		return spec.Function{}, ErrNotFunction
	}
	group, task, ok := worker(job)
	if !ok {
		return spec.Function{}, ErrNotFunction
	}
	f := spec.Function{
		Namespace: value(job.Namespace), App: app, Name: name, Version: job.Meta[MetaVersion],
		Priority: value(job.Priority), Datacenters: datacenters(job.Datacenters), User: task.User, Env: task.Env,
	}
	if task.KillTimeout != nil {
		f.Drain = spec.Duration(*task.KillTimeout)
	}
	var err error
	if f.Config, err = spec.DecodeConfig(task.Config); err != nil {
		return f, fmt.Errorf("job %s: %w", value(job.ID), err)
	}
	if f.Handler == nil {
		return f, ErrNotFunction
	}
	if r := task.Resources; r != nil {
		f.Resources.CPU, f.Resources.MemoryMB = value(r.CPU), value(r.MemoryMB)
	}
	if f.Scaling, err = scaling(group.Scaling); err != nil {
		return f, fmt.Errorf("job %s: %w", value(job.ID), err)
	}
	f = f.WithDefaults()
	if err := f.Validate(); err != nil {
		return f, fmt.Errorf("job %s: %w", value(job.ID), err)
	}
	if id := f.JobID(); id != value(job.ID) {
		return f, fmt.Errorf("job %s: %w", value(job.ID), spec.FieldError{Field: "job id", Value: value(job.ID), Mend: "name the job " + id})
	}
	return f, nil
}

// worker finds the group and the task that run a function's workers.
func worker(job *api.Job) (*api.TaskGroup, *api.Task, bool) {
	for _, group := range job.TaskGroups {
		for _, task := range group.Tasks {
			if task.Driver == Driver {
				return group, task, true
			}
		}
	}
	return nil, nil, false
}

// datacenters reads Nomad's "all of them" as the spec's default.
func datacenters(list []string) []string {
	if len(list) == 1 && list[0] == "*" {
		return nil
	}
	return list
}

func scaling(policy *api.ScalingPolicy) (spec.Scaling, error) {
	var s spec.Scaling
	if policy == nil {
		return s, nil
	}
	s.Min, s.Max = int(value(policy.Min)), int(value(policy.Max))
	for name, raw := range policy.Policy {
		text := fmt.Sprint(raw)
		var err error
		switch name {
		case "target_inflight":
			s.TargetInflight, err = whole(raw)
		case "buffer":
			s.Buffer, err = whole(raw)
		case "scaledown_window":
			err = s.ScaledownWindow.UnmarshalText([]byte(text))
		default:
			err = errors.New("no such field; remove it or mend its spelling")
		}
		if err != nil {
			return s, spec.FieldError{Field: "scaling.policy." + name, Value: text, Mend: err.Error()}
		}
	}
	return s, nil
}

// whole reads a number as HCL (int), JSON (float64) and quoted HCL (string) deliver it.
func whole(raw any) (int, error) {
	switch number := raw.(type) {
	case int:
		return number, nil
	case float64:
		if number == float64(int(number)) {
			return int(number), nil
		}
	case string:
		if n, err := strconv.Atoi(number); err == nil {
			return n, nil
		}
	}
	return 0, errors.New("write a whole number")
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
