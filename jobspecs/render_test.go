package jobspecs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/nomad/api"
	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/jobspecs"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// function draws any valid spec.
func function(t *rapid.T) spec.Function {
	name := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9_-]{0,20}`)
	seconds := func(label string, least, most int) spec.Duration {
		return spec.Duration(rapid.IntRange(least, most).Draw(t, label)) * spec.Duration(time.Second)
	}
	f := spec.Function{
		Namespace: name.Draw(t, "namespace"), App: name.Draw(t, "app"), Name: name.Draw(t, "name"),
		Version:  rapid.StringMatching(`[a-z0-9. ]{0,20}`).Draw(t, "version"),
		Priority: rapid.IntRange(0, 100).Draw(t, "priority"),
		Env:      rapid.MapOf(rapid.StringMatching(`[A-Z_]{1,8}`), rapid.String().Filter(noNUL)).Draw(t, "env"),
		Drain:    seconds("drain", 0, 3600),
		User:     rapid.SampledFrom([]string{"", "nobody", "1000:1000"}).Draw(t, "user"),
	}
	f.Config = spec.Config{
		Code: "/srv/" + name.Draw(t, "code"), Handler: &spec.Handler{Type: spec.HandlerGo, Entry: f.Name},
		Timeout: seconds("timeout", 1, 3600), StartupTimeout: seconds("startup", 1, 3600),
		Concurrency: rapid.IntRange(0, spec.MaxConcurrency).Draw(t, "concurrency"),
		MaxPending:  rapid.Int64Range(0, 1<<40).Draw(t, "pending"),
		Retries: spec.Retries{
			Max: rapid.IntRange(0, 100).Draw(t, "retries"), Backoff: rapid.Float64Range(1, 10).Draw(t, "backoff"),
			Initial: seconds("initial", 0, 60), MaxDelay: seconds("max delay", 0, 600),
			On: rapid.SliceOfN(rapid.SampledFrom([]wire.Kind{wire.KindUser, wire.KindTimeout, wire.KindCrash}), 0, 3).Draw(t, "on"),
		},
		MaxRunning: rapid.IntRange(0, 100).Draw(t, "running"), QueueTimeout: seconds("queue timeout", 0, 3600),
		CancelOnDisconnect: rapid.Bool().Draw(t, "cancel"),
		Snapshot:           spec.Snapshot{Enabled: rapid.Bool().Draw(t, "snapshot")},
	}
	calls(t, &f)
	if rapid.Bool().Draw(t, "secrets") {
		f.Secrets = []string{"db", "hf@2:HF_TOKEN", "cloud:USER,PASSWORD"}
	}
	if rapid.Bool().Draw(t, "volumes") {
		f.NamedVolumes = []spec.Volume{
			{Name: "models", Target: "/models", Readonly: true},
			{Name: "results", Target: "/results"},
			{Name: "disk", Target: "/disk", Source: "csi:team.disk"},
			{Name: "local", Target: "/fast", Source: "host:nvme", Readonly: true},
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "mounts") {
		f.Mounts = append(f.Mounts, spec.Mount{Source: fmt.Sprintf("/host/%d", i), Target: fmt.Sprintf("/guest/%d", i), Readonly: true})
	}
	if rapid.Bool().Draw(t, "web") {
		f.Web = spec.Web{Enabled: true, Public: rapid.Bool().Draw(t, "public"), Domains: []string{"a.example.org"}, Origins: []string{"*"}}
	}
	f.Container = container(t, f.Container)
	f.Scaling.Max = rapid.IntRange(1, spec.MaxScale).Draw(t, "most")
	if f.Parameters == nil {
		f.Scaling.Min = rapid.IntRange(0, f.Scaling.Max).Draw(t, "least")
	}
	f.Scaling.TargetInflight = rapid.IntRange(0, 1000).Draw(t, "target")
	f.Scaling.Buffer = rapid.IntRange(0, 100).Draw(t, "buffer")
	f.Scaling.ScaledownWindow, f.Scaling.ZeroWindow = seconds("window", 0, 3600), seconds("zero window", 0, 3600)
	f.Scaling.BacklogTarget = seconds("backlog target", 0, 3600)
	f.Scaling.StartsPerMinute = rapid.IntRange(0, 100).Draw(t, "starts")
	f.Scaling.PredictPeriod = rapid.SampledFrom([]spec.Duration{0, spec.MinPredictPeriod, spec.MaxPredictPeriod}).Draw(t, "period")
	for range rapid.IntRange(0, 2).Draw(t, "schedules") {
		f.Scaling.Schedules = append(f.Scaling.Schedules, spec.Schedule{
			Cron: fmt.Sprintf("%d 8 * * mon-fri", rapid.IntRange(0, 59).Draw(t, "minute")), Timezone: "Europe/Berlin",
			For: seconds("for", 60, 3600), Min: rapid.IntRange(1, f.Scaling.Max).Draw(t, "scheduled"),
		})
	}
	f.Resources = spec.Resources{CPU: rapid.IntRange(0, 10_000).Draw(t, "cpu"), MemoryMB: rapid.IntRange(spec.MinMemoryMB, 1<<20).Draw(t, "memory")}
	if f.Resources.GPUs = rapid.IntRange(0, 8).Draw(t, "gpus"); f.Resources.GPUs > 0 {
		kinds := []string{spec.AnyGPU, "h100", "A100-80gb", "1g.10gb", "nvidia/gpu", "nomad/file/mock (1)"}
		f.Resources.GPUKinds = rapid.SliceOfNDistinct(rapid.SampledFrom(kinds), 0, len(kinds), rapid.ID).Draw(t, "kinds")
	}
	return f
}

// calls draws how calls reach the function.
func calls(t *rapid.T, f *spec.Function) {
	if rapid.Bool().Draw(t, "batching") {
		f.Batching = spec.Batching{MaxSize: rapid.IntRange(1, 10).Draw(t, "size"), Wait: spec.Duration(rapid.IntRange(0, 60).Draw(t, "wait")) * spec.Duration(time.Second)}
	}
	if rapid.Bool().Draw(t, "rate") {
		f.Rate = spec.Rate{PerSecond: rapid.Float64Range(0.1, 1000).Draw(t, "per second"), Burst: rapid.IntRange(0, 1000).Draw(t, "burst")}
	}
	if rapid.Bool().Draw(t, "schedules of calls") {
		f.Schedules = []spec.CallSchedule{
			{Cron: "0 9 * * 1-5", TimeZone: "Europe/Berlin", Input: `{"q": "news"}`, Missed: "skip"},
			{Name: "often", Every: spec.Duration(rapid.IntRange(1, 3600).Draw(t, "every")) * spec.Duration(time.Second)},
		}
	}
	if rapid.Bool().Draw(t, "class") {
		for i := range f.Schedules {
			f.Schedules[i].Method = "embed"
		}
		f.Methods, f.Batching = []string{"embed", "classify"}, spec.Batching{}
		f.Parameters = []spec.Parameter{{Name: "size", Type: spec.ParameterString, Default: new("s")}, {Name: "layers", Type: spec.ParameterInt, Default: new("3")}}
	}
}

// container draws fields of each shape that a config has.
func container(t *rapid.T, c spec.Container) spec.Container {
	if rapid.Bool().Draw(t, "image") {
		c.Image = "redis:7"
		c.Auth = &spec.Auth{Username: "u", Password: "p"}
		c.ImagePullTimeout = spec.Duration(time.Minute)
	}
	if rapid.Bool().Draw(t, "limits") {
		c.Args = []string{"-v"}
		c.CapAdd = []string{"net_raw"}
		c.Ulimit = []map[string]string{{"nofile": "1:2"}}
		c.Writable = &spec.Writable{Medium: spec.MediumDisk, SizeMB: 10}
		c.PidsLimit, c.ReadonlyRootfs = 100, true
		c.Mounts = append(c.Mounts, spec.Mount{Type: spec.MountTmpfs, Target: "/scratch", TmpfsOptions: []spec.TmpfsOptions{{Size: 1 << 20}}})
	}
	return c
}

func noNUL(s string) bool {
	for _, r := range s {
		if r == 0 {
			return false
		}
	}
	return true
}

// TestRenderedJobSaysTheSame: a job is the only record of a function, so nothing may be lost on the way into it and back.
func TestRenderedJobSaysTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := function(t)
		job, err := jobspecs.Render(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := jobs.Function(throughJSON(t, job))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want.WithDefaults(), got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

// throughJSON is what Nomad's API makes of a job.
func throughJSON(t *rapid.T, job *api.Job) *api.Job {
	data, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	read := &api.Job{}
	if err := json.Unmarshal(data, read); err != nil {
		t.Fatal(err)
	}
	return read
}

func TestRenderRefusesAWrongSpec(t *testing.T) {
	_, err := jobspecs.Render(spec.Function{App: "a", Name: "b c", Config: spec.Config{Handler: &spec.Handler{Type: spec.HandlerGo}}})
	var wrong *spec.ValidationError
	if !errors.As(err, &wrong) || len(wrong.Fields) != 2 {
		t.Fatalf("got %v, want the name and the code", err)
	}
}

func TestTemplates(t *testing.T) {
	if d := cmp.Diff([]string{"batch", "class", "exec", "function", "gosearch", "gpu", "http", "python", "schedule", "sidecar", "system/autoscaler", "system/gateway", "system/nats"}, jobspecs.Names()); d != "" {
		t.Fatal(d)
	}
	if text, err := jobspecs.Template("function"); err != nil || len(text) == 0 {
		t.Fatalf("got %d bytes, %v", len(text), err)
	}
	if _, err := jobspecs.Template("functio"); err == nil {
		t.Fatal("got a jobspec that is not there")
	}
}
