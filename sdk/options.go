package freshet

import (
	"context"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Option sets something of a function. Values out of range are reported when the app is deployed.
type Option func(*function)

// Enter runs a hook before the worker takes its first call: load what every call needs. A failure ends the worker, and
// callers read its error.
func Enter(hook func(context.Context) error) Option {
	return func(f *function) { f.hooks.enter = hook }
}

// BeforeFreeze runs a hook before the worker is frozen: close what cannot be frozen, such as network connections.
func BeforeFreeze(hook func(context.Context) error) Option {
	return func(f *function) { f.hooks.beforeFreeze = hook }
}

// AfterThaw runs a hook when a frozen worker wakes, before its first call: open again what BeforeFreeze closed, and renew
// what copies must not share. It runs in the original too, which goes on after its snapshot.
func AfterThaw(hook func(context.Context) error) Option {
	return func(f *function) { f.hooks.afterThaw = hook }
}

// Exit runs a hook when a worker ends that has no more calls. It has some seconds; a worker that is killed runs none.
func Exit(hook func(context.Context) error) Option {
	return func(f *function) { f.hooks.exit = hook }
}

// Rate is how many calls a second each gateway takes, and how many at once after a pause; others are refused with status 429, and
// the lines of batches and maps wait. A burst of 0 is the calls of a second. Default: any number.
func Rate(perSecond float64, burst int) Option {
	return func(f *function) { f.spec.Rate = spec.Rate{PerSecond: perSecond, Burst: burst} }
}

// Concurrency is the number of calls that a worker runs at once; of a [Batched] function, the number of batches. Default 1.
func Concurrency(calls int) Option {
	return func(f *function) { f.spec.Concurrency = calls }
}

// CPU is what a worker reserves, in MHz. Default 100.
func CPU(mhz int) Option {
	return func(f *function) { f.spec.Resources.CPU = mhz }
}

// MemoryMB is what a worker reserves, in MB. Default 256.
func MemoryMB(mb int) Option {
	return func(f *function) { f.spec.Resources.MemoryMB = mb }
}

// Timeout bounds one attempt of a call. Default 5 minutes.
func Timeout(d time.Duration) Option {
	return func(f *function) { f.spec.Timeout = spec.Duration(d) }
}

// StartupTimeout bounds a cold start with its enter hook. Default 10 minutes.
func StartupTimeout(d time.Duration) Option {
	return func(f *function) { f.spec.StartupTimeout = spec.Duration(d) }
}

// Retries lets failed attempts be followed by up to limit others, the first after initial, each further one after backoff
// times as long. Default none.
func Retries(limit int, initial time.Duration, backoff float64) Option {
	return func(f *function) {
		f.spec.Retries.Max, f.spec.Retries.Initial, f.spec.Retries.Backoff = limit, spec.Duration(initial), backoff
	}
}

// Snapshot says whether workers are frozen after their enter hook and thawed at the next start. Default: yes for functions
// with an enter hook.
func Snapshot(enabled bool) Option {
	return func(f *function) {
		f.spec.Snapshot.Enabled = enabled
		f.snapshot = true
	}
}

// Scale bounds the number of workers. Default 0 to 10.
func Scale(least, most int) Option {
	return func(f *function) { f.spec.Scaling.Min, f.spec.Scaling.Max = least, most }
}

// TargetInflight is the number of calls, waiting and running, for which there should be one worker. Default: its concurrency.
func TargetInflight(calls int) Option {
	return func(f *function) { f.spec.Scaling.TargetInflight = calls }
}

// Buffer is the number of idle workers kept ready while there is any need. Default 0.
func Buffer(workers int) Option {
	return func(f *function) { f.spec.Scaling.Buffer = workers }
}

// ScaledownWindow is how long the need must stay lower before workers go. Default 60 seconds.
func ScaledownWindow(d time.Duration) Option {
	return func(f *function) { f.spec.Scaling.ScaledownWindow = spec.Duration(d) }
}

// ZeroWindow is how long there must be no need before the last worker goes. Default: the scale-down window. Make it longer for a
// function whose first call should seldom wait for a start.
func ZeroWindow(d time.Duration) Option {
	return func(f *function) { f.spec.Scaling.ZeroWindow = spec.Duration(d) }
}

// BacklogTarget is within what time waiting calls should be done, by the measured times of calls and starts: fewer workers then
// stand for more calls each. It suits batch work. Default: as many workers as TargetInflight asks for.
func BacklogTarget(d time.Duration) Option {
	return func(f *function) { f.spec.Scaling.BacklogTarget = spec.Duration(d) }
}

// StartsPerMinute bounds the workers started within a minute, where a start costs others something, such as the pull of a model
// from one server. Default: no bound.
func StartsPerMinute(workers int) Option {
	return func(f *function) { f.spec.Scaling.StartsPerMinute = workers }
}

// PredictPeriod is the period of a load that repeats, 5 minutes to 7 days and mostly 24 hours: workers start ahead of a load that
// the periods before had. Default: nothing is predicted.
func PredictPeriod(d time.Duration) Option {
	return func(f *function) { f.spec.Scaling.PredictPeriod = spec.Duration(d) }
}

// Warm keeps at least so many workers for some time from each time of the cron expression on, such as Warm("30 8 * * 1-5", "Europe/Berlin",
// 10*time.Hour, 2). An empty time zone is UTC. The option may be given several times: the highest number is in force.
func Warm(cron, timezone string, length time.Duration, workers int) Option {
	return func(f *function) {
		schedule := spec.Schedule{Cron: cron, Timezone: timezone, For: spec.Duration(length), Min: workers}
		f.spec.Scaling.Schedules = append(f.spec.Scaling.Schedules, schedule)
	}
}

// AnyGPU is the kind that every GPU is of.
const AnyGPU = spec.AnyGPU

// GPU is the number of GPUs that a worker has, and of which kinds, in the order of preference: words of the model's name, such as
// "h100" or "a100-80gb", "any", or Nomad's name of a device, such as "nvidia/gpu". Where no node has one of the first kind to
// spare, workers start with the next. Default no GPU, and "any" where no kind is named.
func GPU(count int, kinds ...string) Option {
	return func(f *function) { f.spec.Resources.GPUs, f.spec.Resources.GPUKinds = count, kinds }
}

// Priority orders functions that compete for the same nodes, 1 to 100. Default 50.
func Priority(priority int) Option {
	return func(f *function) { f.spec.Priority = priority }
}

// Env sets a variable of the function's environment.
func Env(name, value string) Option {
	return func(f *function) {
		if f.spec.Env == nil {
			f.spec.Env = make(map[string]string)
		}
		f.spec.Env[name] = value
	}
}

// Secrets gives the function the keys of secrets as variables of its environment: "db" in its newest version, "db@3" in that one,
// "db:USER,PASSWORD" when it must have these keys. A variable that [Env] sets too is Env's. A secret is made by `freshet secret create`.
func Secrets(names ...string) Option {
	return func(f *function) { f.spec.Secrets = append(f.spec.Secrets, names...) }
}

// Volume gives the function a directory that it shares with the other functions that name it, to read and write. What one worker wrote
// and closed, another one that opens it then sees. A volume is made by `freshet volume create`.
func Volume(name, target string) Option {
	return func(f *function) {
		f.spec.NamedVolumes = append(f.spec.NamedVolumes, spec.Volume{Name: name, Target: target})
	}
}

// ReadonlyVolume is [Volume] for a function that must not write to it.
func ReadonlyVolume(name, target string) Option {
	return func(f *function) {
		f.spec.NamedVolumes = append(f.spec.NamedVolumes, spec.Volume{Name: name, Target: target, Readonly: true})
	}
}

// NomadVolume is [Volume] for a volume of Nomad's own in place of the cluster's: the source is "csi:ID" or "host:NAME".
func NomadVolume(source, name, target string) Option {
	return func(f *function) {
		f.spec.NamedVolumes = append(f.spec.NamedVolumes, spec.Volume{Name: name, Target: target, Source: source})
	}
}

// Mount lets the function read a directory or file of the node, where the node's operator allows host paths.
func Mount(source, target string) Option {
	return func(f *function) {
		f.spec.Mounts = append(f.spec.Mounts, spec.Mount{Source: source, Target: target, Readonly: true})
	}
}
