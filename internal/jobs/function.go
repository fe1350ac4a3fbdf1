// Package jobs is freshet's view of Nomad: functions are jobs, read from Nomad's API and followed through its event stream. There
// is no other record of functions.
package jobs

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Meta keys of a function's job.
const (
	MetaApp      = "freshet.app"
	MetaFunction = "freshet.function"
	MetaVersion  = "freshet.version"
	// MetaWarm marks the job that starts a worker ahead of a deploy, by the function's job.
	MetaWarm = "freshet.warm"
)

// Driver is the name of the task driver.
const Driver = "freshet"

// ErrNotFunction says that the job is somebody else's.
var ErrNotFunction = errors.New("not a function's job")

// Function reads a function's spec out of its job, with defaults set: ErrNotFunction for other jobs, and an error that names
// the field for a function's job that is wrong. With a *PolicyError the rest of the function is right, and its scaling is the
// default.
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
	for _, g := range groups(job) {
		if g.Devices > 0 {
			f.Resources.GPUs = g.Devices
			f.Resources.GPUKinds = append(f.Resources.GPUKinds, g.Device)
		}
	}
	policy, policyErr := scaling(group.Scaling)
	if policyErr == nil {
		f.Scaling = policy
		policyErr = onlyScaling(f)
	}
	if policyErr != nil {
		f.Scaling = spec.Scaling{}
	}
	f = f.WithDefaults()
	if err := f.Validate(); err != nil {
		return f, fmt.Errorf("job %s: %w", value(job.ID), err)
	}
	if err := checkSchedules(f.Schedules); err != nil {
		return f, fmt.Errorf("job %s: %w", value(job.ID), err)
	}
	if id := f.JobID(); id != value(job.ID) {
		return f, fmt.Errorf("job %s: %w", value(job.ID), spec.FieldError{Field: "job id", Value: value(job.ID), Mend: "name the job " + id})
	}
	if policyErr != nil {
		return f, fmt.Errorf("job %s: %w", value(job.ID), &PolicyError{Cause: policyErr})
	}
	return f, nil
}

// Group is one of the groups of a function's job: workers that may run on one kind of node.
type Group struct {
	Name  string
	Count int
	// Min and Max are the bounds that Nomad itself enforces on the group's count.
	Min, Max int
	// Device is the kind that its task asks for, such as "h100" or Nomad's own "nvidia/gpu"; empty for none. Devices is how many.
	Device  string
	Devices int
}

// groups are the job's groups of workers, in the order in which they stand in the job: that of preference.
func groups(job *api.Job) []Group {
	var all []Group
	for _, group := range job.TaskGroups {
		task := guest(group)
		if task == nil {
			continue
		}
		one := Group{Name: value(group.Name), Count: value(group.Count), Max: spec.MaxScale}
		if s := group.Scaling; s != nil {
			one.Min, one.Max = int(value(s.Min)), int(value(s.Max))
		}
		if r := task.Resources; r != nil && len(r.Devices) > 0 {
			one.Device, one.Devices = kindOf(r.Devices[0]), int(*cmp.Or(r.Devices[0].Count, new(uint64(1))))
		}
		all = append(all, one)
	}
	return all
}

// worker finds the first group and the task that run a function's workers.
func worker(job *api.Job) (*api.TaskGroup, *api.Task, bool) {
	for _, group := range job.TaskGroups {
		if task := guest(group); task != nil {
			return group, task, true
		}
	}
	return nil, nil, false
}

// guest is the task of a group that takes calls: the driver may run others beside it, which have no handler.
func guest(group *api.TaskGroup) *api.Task {
	for _, task := range group.Tasks {
		if task.Driver == Driver && task.Config["handler"] != nil {
			return task
		}
	}
	return nil
}

// datacenters reads Nomad's "all of them" as the spec's default.
func datacenters(list []string) []string {
	if len(list) == 1 && list[0] == "*" {
		return nil
	}
	return list
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
