// Package jobspecs makes the Nomad job of a function, and holds the jobspecs that people copy and write by hand. Both say the
// same: a job that was rendered could have been written, and one that was written works without any SDK.
package jobspecs

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// Names within a function's job.
const (
	Group = "worker"
	Task  = "guest"
)

// Restarts of a worker that died: some at once on its node, then anywhere with a growing pause, for ever. Nomad wants
// at least 5 s for the latter.
const (
	restartAttempts    = 5
	restartDelay       = 250 * time.Millisecond
	restartInterval    = 30 * time.Second
	rescheduleDelay    = 5 * time.Second
	rescheduleMaxDelay = 2 * time.Minute
)

// diskMB is what Nomad reserves for a worker's log files.
const diskMB = 50

// Render makes the job of a function. It fails with a *spec.ValidationError for a spec that is not valid.
func Render(f spec.Function) (*api.Job, error) {
	if err := f.Validate(); err != nil {
		return nil, fmt.Errorf("render %s: %w", f.JobID(), err)
	}
	f = f.WithDefaults()
	config, err := taskConfig(f.Config)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", f.JobID(), err)
	}
	datacenters := f.Datacenters
	if len(datacenters) == 0 {
		datacenters = []string{"*"}
	}
	job := &api.Job{
		ID: new(f.JobID()), Name: new(f.JobID()), Namespace: new(f.Namespace),
		Type: new("service"), Priority: new(f.Priority), Datacenters: datacenters,
		Meta:       map[string]string{jobs.MetaApp: f.App, jobs.MetaFunction: f.Name, jobs.MetaVersion: f.Version},
		TaskGroups: groups(f, config),
	}
	return job, nil
}

// groups are one for each kind of device, in the order of preference; the first has the policy. Nomad refuses counts below a
// group's min, so with several groups each has 0, for workers to move on, and the policy has the function's.
func groups(f spec.Function, config map[string]any) []*api.TaskGroup {
	kinds := f.Resources.GPUKinds
	if len(kinds) == 0 {
		return []*api.TaskGroup{group(f, Group, config, nil, scalingBlock(f.Scaling))}
	}
	all := make([]*api.TaskGroup, len(kinds))
	for i, kind := range kinds {
		name, scaling := Group, scalingBlock(f.Scaling)
		if len(kinds) > 1 {
			scaling.Policy["min"], scaling.Min = f.Scaling.Min, new(int64(0))
		}
		if i > 0 {
			name = Group + "-" + unnamable.ReplaceAllString(kind, "-")
			scaling.Policy = nil
		}
		all[i] = group(f, name, config, []*api.RequestedDevice{jobs.Device(kind, f.Resources.GPUs)}, scaling)
		if i > 0 {
			all[i].Count = new(0)
		}
	}
	return all
}

// unnamable is what group names do not have; it is immutable.
var unnamable = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

func group(f spec.Function, name string, config map[string]any, devices []*api.RequestedDevice, scaling *api.ScalingPolicy) *api.TaskGroup {
	return &api.TaskGroup{
		Name:  new(name),
		Count: new(f.Scaling.Min),
		// A deployment in progress would make Nomad refuse to scale.
		Update:           &api.UpdateStrategy{MaxParallel: new(0)},
		Scaling:          scaling,
		RestartPolicy:    restartPolicy(),
		ReschedulePolicy: reschedulePolicy(),
		EphemeralDisk:    &api.EphemeralDisk{SizeMB: new(diskMB)},
		Volumes:          requests(f.NamedVolumes),
		Constraints:      constraints(f),
		Tasks: []*api.Task{{
			VolumeMounts: volumeMounts(f.NamedVolumes),
			Name:         Task, Driver: jobs.Driver, User: f.User, Config: config, Env: f.Env,
			KillTimeout: new(f.Drain.Std()),
			// The driver writes the log files itself: Nomad's collector costs 90 ms a start.
			LogConfig: &api.LogConfig{Disabled: new(true), MaxFiles: new(5), MaxFileSizeMB: new(5)},
			Resources: &api.Resources{CPU: new(f.Resources.CPU), MemoryMB: new(f.Resources.MemoryMB), Devices: devices},
		}},
	}
}

// taskConfig writes the config block as Nomad's parser would deliver it.
func taskConfig(c spec.Config) (map[string]any, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	for name, raw := range config {
		if block, ok := raw.(map[string]any); ok {
			if len(block) == 0 {
				delete(config, name)
				continue
			}
			config[name] = []map[string]any{block}
		}
	}
	return config, nil
}

func scalingBlock(s spec.Scaling) *api.ScalingPolicy {
	policy := map[string]any{
		"target_inflight": s.TargetInflight, "buffer": s.Buffer,
		"scaledown_window": s.ScaledownWindow.String(), "zero_window": s.ZeroWindow.String(),
	}
	if s.BacklogTarget > 0 {
		policy["backlog_target"] = s.BacklogTarget.String()
	}
	if s.StartsPerMinute > 0 {
		policy["starts_per_minute"] = s.StartsPerMinute
	}
	if s.PredictPeriod > 0 {
		policy["predict_period"] = s.PredictPeriod.String()
	}
	var schedules []map[string]any
	for _, one := range s.Schedules {
		schedules = append(schedules, map[string]any{"cron": one.Cron, "timezone": one.Timezone, "for": one.For.String(), "min": one.Min})
	}
	if schedules != nil {
		policy["schedule"] = schedules
	}
	return &api.ScalingPolicy{Enabled: new(true), Min: new(int64(s.Min)), Max: new(int64(s.Max)), Policy: policy}
}

func restartPolicy() *api.RestartPolicy {
	return &api.RestartPolicy{
		Attempts: new(restartAttempts), Interval: new(restartInterval), Delay: new(restartDelay), Mode: new("fail"),
	}
}

func reschedulePolicy() *api.ReschedulePolicy {
	return &api.ReschedulePolicy{
		Unlimited: new(true), Attempts: new(0), Interval: new(time.Duration(0)),
		Delay: new(rescheduleDelay), DelayFunction: new("exponential"), MaxDelay: new(rescheduleMaxDelay),
	}
}
