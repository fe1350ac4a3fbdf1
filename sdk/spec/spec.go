// Package spec is the function's spec: the one type that every door writes (SDKs, jobspecs, the command line) and
// every part reads (driver, gateway, autoscaler).
//
// In HCL it is the task's config block, the task's env and resources, and the group's scaling block; the field names
// there are the JSON names here.
package spec

import (
	"math"
	"slices"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// Limits and defaults of a spec. Each is stated here once; Validate and WithDefaults use them.
const (
	// DefaultNamespace is the environment of a function that names none: Nomad's own default namespace.
	DefaultNamespace = "default"

	// DefaultPriority is Nomad's default job priority; the range is Nomad's 1 to 100.
	DefaultPriority = 50
	MaxPriority     = 100

	// DefaultTimeout bounds one attempt of a call; MaxTimeout is the longest a spec may ask for.
	DefaultTimeout = Duration(5 * time.Minute)
	MaxTimeout     = Duration(24 * time.Hour)

	// DefaultStartupTimeout bounds a cold start up to the end of the enter hooks.
	DefaultStartupTimeout = Duration(10 * time.Minute)

	// DefaultImagePullTimeout bounds the pull of an image, as in Nomad's docker driver.
	DefaultImagePullTimeout = Duration(5 * time.Minute)

	// DefaultDrain is how long a stopping worker may take to finish its calls (Nomad's kill_timeout).
	DefaultDrain = Duration(10 * time.Minute)

	// DefaultConcurrency and MaxConcurrency bound the slots of one worker.
	DefaultConcurrency = 1
	MaxConcurrency     = 1000

	// DefaultMaxPending bounds the calls that may wait or run in a function's queue; beyond it a call is refused.
	DefaultMaxPending = 1_000_000

	// DefaultScaleMax is the most workers a function gets when it names no maximum.
	DefaultScaleMax = 10
	// MaxScale is the largest maximum a spec may ask for.
	MaxScale = 10_000

	// DefaultScaledownWindow is how long a function must be quiet before it loses workers: Modal's default too.
	DefaultScaledownWindow = Duration(60 * time.Second)

	// DefaultCPU (MHz) and DefaultMemoryMB are a worker's resources: Nomad's own defaults are 100 MHz and 300 MB.
	DefaultCPU      = 100
	DefaultMemoryMB = 256
	// AnyGPU is the kind of device that every GPU is of.
	AnyGPU = "any"

	// MinMemoryMB is the least a sandbox with its supervisor runs in: about 95 MB were measured at rest.
	MinMemoryMB = 128
)

// The kinds of handler. A spec without one describes an ordinary sandboxed Nomad task.
const (
	// HandlerGo is a static binary that speaks the frames of package wire itself (the Go SDK does).
	HandlerGo = "go"
	// HandlerPython is the python runtime of sdk/python.
	HandlerPython = "python"
	// HandlerExec runs a command for each call.
	HandlerExec = "exec"
	// HandlerHTTP fronts any HTTP server in the image.
	HandlerHTTP = "http"
	// HandlerModal runs the modal client's container entry point.
	HandlerModal = "modal"
)

// Function is the whole spec of one function: one unit of scaling, one Nomad job.
type Function struct {
	// Namespace is the environment, a Nomad namespace. Default "default".
	Namespace string `json:"namespace,omitempty"`
	// App and Name identify the function; both match [A-Za-z0-9][A-Za-z0-9_-]{0,62}.
	App  string `json:"app"`
	Name string `json:"name"`
	// Version tells deploys of the app apart; any printable text, at most 128 bytes.
	Version string `json:"version,omitempty"`
	// Priority is the Nomad job's, 1 to 100; online functions stand above batch ones. Default 50.
	Priority int `json:"priority,omitempty"`
	// Datacenters the workers may run in; default all.
	Datacenters []string `json:"datacenters,omitempty"`

	Config

	// User runs the guest: a name or number of the image, with an optional ":group". Default: the image's.
	User string `json:"user,omitempty"`
	// Env is the guest's environment.
	Env map[string]string `json:"env,omitempty"`
	// Resources are what one worker reserves.
	Resources Resources `json:"resources"`
	// Scaling says how many workers there may be, and when.
	Scaling Scaling `json:"scaling"`
	// Drain is how long a stopping worker may take to finish its calls. Default 10m.
	Drain Duration `json:"drain,omitempty"`
}

// Config is the part of the spec that stands in the Nomad task's config block and that the driver acts on.
type Config struct {
	Container

	// Code is the guest's program: "sha256:<hex>" names a blob of the cluster, an absolute path a file on the node
	// (where the node's operator allows host paths).
	Code string `json:"code,omitempty"`
	// Build makes the task one that builds an image and ends. Not for functions.
	Build *Build `json:"build,omitempty"`
	// Handler says how calls reach the guest; none makes the task an ordinary sandboxed one.
	Handler *Handler `json:"handler,omitempty"`
	// Timeout bounds one attempt of a call, 1s to 24h. Default 5m.
	Timeout Duration `json:"timeout,omitempty"`
	// StartupTimeout bounds a cold start with its enter hooks. Default 10m.
	StartupTimeout Duration `json:"startup_timeout,omitempty"`
	// Concurrency is the number of slots of a worker: calls it runs at once, 1 to 1000. Default 1.
	Concurrency int `json:"concurrency,omitempty"`
	// MaxPending bounds the calls waiting and running; beyond it callers get 429. Default 1,000,000.
	MaxPending int64 `json:"max_pending,omitempty"`
	// MaxRunning bounds the calls that run at once, in all workers together; those that wait for their next attempt count.
	// Default 0: no bound.
	MaxRunning int `json:"max_running,omitempty"`
	// QueueTimeout is how long a call may wait for its first attempt before it expires. Default 0: as long as its caller waits.
	QueueTimeout Duration `json:"queue_timeout,omitempty"`
	// CancelOnDisconnect ends a call whose caller goes away instead of waiting for its answer.
	CancelOnDisconnect bool `json:"cancel_on_disconnect,omitempty"`
	// Batching gives waiting calls to the guest together. The zero value gives it each call alone.
	Batching Batching `json:"batching"`
	// Rate bounds how often the function is called. The zero value bounds nothing.
	Rate Rate `json:"rate"`
	// Methods are the names by which a class is called; a call must name one of them. Default none: the function is called itself, and
	// what a call's method means is the guest's to say.
	Methods []string `json:"methods,omitempty"`
	// Parameters are what a class is made with. Each combination of their values that is called has workers of its own.
	Parameters []Parameter `json:"parameter,omitempty"`
	// Retries says what happens to a call whose code raised an error or whose worker died.
	Retries Retries `json:"retries"`
	// Snapshot freezes the worker after its enter hooks and thaws later workers from it.
	Snapshot Snapshot `json:"snapshot"`
	// Secrets are those whose keys become variables of the guest's environment: "db" in its newest version, "db@3" in that one,
	// "db:USER,PASSWORD" when it must have these keys. A variable that env sets too is env's; of two secrets' the later one's.
	Secrets []string `json:"secrets,omitempty"`
	// NamedVolumes are directories that functions share. What a load hook read from one is frozen with the worker; what is read later is as
	// it is then.
	NamedVolumes []Volume `json:"volume,omitempty"`
	// Network is what the guest may reach.
	Network Network `json:"network"`
	// Schedules have the function called by a clock.
	Schedules []CallSchedule `json:"schedule,omitempty"`
	// Web is how the guest's own server is reached from outside, beside calls.
	Web Web `json:"web"`
}

// ServesWeb tells whether requests may reach the guest's own server.
func (c Config) ServesWeb() bool {
	return c.Handler != nil && (c.Handler.Type == HandlerHTTP || c.Web.Enabled)
}

// Handler says how a call reaches the guest.
type Handler struct {
	// Type is one of the Handler constants.
	Type string `json:"type"`
	// Entry names what to call within the guest: the SDK's function name for go, module:function for python.
	Entry string `json:"entry,omitempty"`
	// Port is where the server of an http handler listens in its sandbox, 1 to 65535.
	Port int `json:"port,omitempty"`
	// Ready is the path that answers with a status below 400 when the server of an http handler can take requests. Default: it
	// is ready when its port accepts connections.
	Ready string `json:"ready,omitempty"`
	// Live is a path that must go on answering below 500; a server that does not is replaced. Default: none is asked.
	Live string `json:"live,omitempty"`
}

// Web is how the server in a guest is reached from outside: at the gateway's /web/APP/FUNCTION/, and by host names.
type Web struct {
	// Enabled opens the way to the server of a go or python handler, which must have one; that of an http handler is always open.
	Enabled bool `json:"enabled,omitempty"`
	// Public lets everybody in; without it requests need a token where calls do.
	Public bool `json:"public,omitempty"`
	// Domains are host names of the function's own, in lower case, which lead to the gateway. One that another function claimed
	// before stays the other's.
	Domains []string `json:"domains,omitempty"`
	// Origins are the web origins whose pages may use the endpoint, such as "https://example.org", "*" for all; the gateway then answers
	// their preflights. Default none: the server's own answers stand.
	Origins []string `json:"origins,omitempty"`
}

// Retries is the policy for failed attempts. The zero value retries nothing.
type Retries struct {
	// Max is the number of further attempts after the first, 0 to 100.
	Max int `json:"max,omitempty"`
	// Backoff multiplies the delay after each attempt, 1 to 10. Default 2.
	Backoff float64 `json:"backoff,omitempty"`
	// Initial is the delay before the first retry. Default 1s.
	Initial Duration `json:"initial,omitempty"`
	// MaxDelay bounds the delay. Default 60s.
	MaxDelay Duration `json:"max_delay,omitempty"`
	// On are the kinds of error that are retried: user, timeout, crash, oom, protocol. Default all of them.
	On []wire.Kind `json:"on,omitempty"`
}

// Snapshot says whether workers are frozen after load and thawed at start.
type Snapshot struct {
	Enabled bool `json:"enabled,omitempty"`
	// GPU includes the device's memory in the snapshot.
	GPU bool `json:"gpu,omitempty"`
}

// Network is what the guest may reach; nothing by default.
type Network struct {
	// Egress opens the way out, still never to the host and the cluster's own services.
	Egress bool `json:"egress,omitempty"`
	// Allow limits egress to these CIDRs, each with an optional port: "10.0.0.0/8:443".
	Allow []string `json:"allow,omitempty"`
}

// Resources are what one worker reserves on its node.
type Resources struct {
	// CPU is in MHz, as in Nomad. Default 100.
	CPU int `json:"cpu,omitempty"`
	// MemoryMB is in MB, at least 128. Default 256.
	MemoryMB int `json:"memory,omitempty"`
	// GPUs is the number of devices.
	GPUs int `json:"gpus,omitempty"`
	// GPUKinds are the kinds of devices in the order of preference: words of the model's name, such as "h100" or "a100-80gb", "any"
	// for every GPU, or Nomad's name of a device, such as "nvidia/gpu". Workers of the next kind start where Nomad has no place
	// for one of those before. Default "any" where there are GPUs.
	GPUKinds []string `json:"gpu_kinds,omitempty"`
}

// Scaling bounds and paces the number of workers.
type Scaling struct {
	// Min workers stay when there is nothing to do. Default 0.
	Min int `json:"min,omitempty"`
	// Max workers at most, 1 to 10,000. Default 10.
	Max int `json:"max,omitempty"`
	// TargetInflight is the number of calls, waiting and running, that one worker should have. Default: those that it can run at
	// once, Config.Slots.
	TargetInflight int `json:"target_inflight,omitempty"`
	// Buffer is the number of idle workers kept beyond the need while there is any.
	Buffer int `json:"buffer,omitempty"`
	// ScaledownWindow is how long the need must stay lower before workers go. Default 60s.
	ScaledownWindow Duration `json:"scaledown_window,omitempty"`
	// ZeroWindow is how long there must be no need before the last worker goes. Default: ScaledownWindow.
	ZeroWindow Duration `json:"zero_window,omitempty"`
	// BacklogTarget is within what time waiting calls should be done, by the measured service and start times: fewer workers
	// then stand for more calls each. Default 0: as many workers as TargetInflight asks for.
	BacklogTarget Duration `json:"backlog_target,omitempty"`
	// StartsPerMinute bounds the workers started within a minute. Default 0: no bound.
	StartsPerMinute int `json:"starts_per_minute,omitempty"`
	// PredictPeriod is the period of load that repeats, such as 24h: workers start ahead of a load that the periods before
	// had. Default 0: nothing is predicted.
	PredictPeriod Duration `json:"predict_period,omitempty"`
	// Schedules raise Min at times.
	Schedules []Schedule `json:"schedule,omitempty"`
}

// JobID is the id of the function's Nomad job.
func (f Function) JobID() string { return f.App + "." + f.Name }

// WarmSuffix ends the id of the job that starts one worker of a function ahead of a deploy, to freeze it; its name is the function's
// job's. Such a worker takes no calls.
const WarmSuffix = ".warm"

// WithDefaults returns the spec with every unset field at its default.
func (f Function) WithDefaults() Function {
	setDefault(&f.Namespace, DefaultNamespace)
	setDefault(&f.Priority, DefaultPriority)
	setDefault(&f.Drain, DefaultDrain)
	setDefault(&f.Resources.CPU, DefaultCPU)
	setDefault(&f.Resources.MemoryMB, DefaultMemoryMB)
	if f.Resources.GPUs > 0 && len(f.Resources.GPUKinds) == 0 {
		f.Resources.GPUKinds = []string{AnyGPU}
	}
	setDefault(&f.Scaling.Max, max(DefaultScaleMax, f.Scaling.Min))
	setDefault(&f.Scaling.ScaledownWindow, DefaultScaledownWindow)
	setDefault(&f.Scaling.ZeroWindow, f.Scaling.ScaledownWindow)
	f.Config = f.Config.WithDefaults()
	setDefault(&f.Scaling.TargetInflight, f.Slots())
	return f
}

// WithDefaults returns the config with every unset field at its default.
func (c Config) WithDefaults() Config {
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.StartupTimeout, DefaultStartupTimeout)
	if c.Image != "" {
		setDefault(&c.ImagePullTimeout, DefaultImagePullTimeout)
	}
	if c.Build != nil {
		build := c.Build.WithDefaults()
		c.Build = &build
	}
	setDefault(&c.Concurrency, DefaultConcurrency)
	setDefault(&c.MaxPending, DefaultMaxPending)
	if c.Rate.PerSecond > 0 {
		setDefault(&c.Rate.Burst, max(1, int(math.Ceil(min(c.Rate.PerSecond, MaxRate)))))
	}
	c.Schedules = slices.Clone(c.Schedules)
	for i := range c.Schedules {
		setDefault(&c.Schedules[i].Name, ScheduleName)
	}
	setDefault(&c.Retries.Backoff, 2)
	setDefault(&c.Retries.Initial, Duration(time.Second))
	setDefault(&c.Retries.MaxDelay, Duration(time.Minute))
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Wants tells whether an attempt that ended in an error of the kind may be followed by another one.
func (r Retries) Wants(kind wire.Kind) bool { return len(r.On) == 0 || slices.Contains(r.On, kind) }

// Delay is how long to wait after the given failed attempt (1 is the first) before the next one.
func (r Retries) Delay(attempt int) time.Duration {
	delay := float64(r.Initial)
	for range attempt - 1 {
		delay *= r.Backoff
		if delay >= float64(r.MaxDelay) {
			break
		}
	}
	return time.Duration(min(delay, float64(r.MaxDelay)))
}
