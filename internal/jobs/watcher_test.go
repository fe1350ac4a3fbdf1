package jobs_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// job is a function's, as a person could have written it.
func job(app, name string) *api.Job {
	return &api.Job{
		ID: new(app + "." + name), Name: new(app + "." + name), Type: new("service"), Datacenters: []string{"*"},
		Meta: map[string]string{jobs.MetaApp: app, jobs.MetaFunction: name, jobs.MetaVersion: "1"},
		TaskGroups: []*api.TaskGroup{{
			Name: new("worker"), Count: new(0), Update: &api.UpdateStrategy{MaxParallel: new(0)},
			Scaling: &api.ScalingPolicy{Enabled: new(true), Min: new(int64(0)), Max: new(int64(7)), Policy: map[string]any{"scaledown_window": "2s"}},
			Tasks: []*api.Task{{
				Name: "guest", Driver: jobs.Driver,
				Config: map[string]any{"code": "/srv/program", "handler": []map[string]any{{"type": "go", "entry": name}}},
			}},
		}},
	}
}

func key(app, name string) queue.Function {
	return queue.Function{Namespace: "default", App: app, Name: name}
}

func TestWatcherFollowsTheLifeOfAJob(t *testing.T) {
	nomad := nomadtest.Start(t)
	if err := jobs.Register(t.Context(), nomad, job("before", "f")); err != nil {
		t.Fatal(err)
	}
	var changes atomic.Int64
	w := jobs.NewWatcher(nomad, func(queue.Function) { changes.Add(1) }, zerolog.Nop())
	w.Open(t.Context())
	defer w.Close()
	eventually.True(t, "the job that was there is known", func() bool { _, ok := w.Get("default", "before", "f"); return ok && w.Ready() })

	if err := jobs.Register(t.Context(), nomad, job("app", "f")); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the new job is known", func() bool {
		f, ok := w.Get("default", "app", "f")
		return ok && f.Scaling.Max == 7 && f.Version == "1"
	})
	if changes.Load() == 0 {
		t.Error("nobody was told")
	}
	if _, _, err := nomad.Jobs().Scale("app.f", "worker", new(3), "", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the new count is known", func() bool { e, _ := w.Entry(key("app", "f")); return e.Count == 3 })

	changed := job("app", "f")
	changed.Meta[jobs.MetaVersion] = "2"
	if err := jobs.Register(t.Context(), nomad, changed); err != nil {
		t.Fatal(err)
	}
	w.Await(t.Context(), "default", "app", "f", "2")
	if e, _ := w.Entry(key("app", "f")); e.Count != 3 || e.Spec.Version != "2" {
		t.Errorf("a new version has count %d, want the 3 that ran", e.Count)
	}

	if err := jobs.Stop(t.Context(), nomad, "default", "app.f"); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the stopped job is gone", func() bool { _, ok := w.Entry(key("app", "f")); return !ok })
	if _, _, err := nomad.Jobs().Deregister("before.f", true, nil); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the purged job is gone", func() bool { return len(w.List()) == 0 })
}

func TestWrongJobsAreKnownWithTheirError(t *testing.T) {
	nomad := nomadtest.Start(t)
	wrong := job("app", "f")
	wrong.TaskGroups[0].Tasks[0].Config["concurency"] = 3
	if err := jobs.Register(t.Context(), nomad, wrong); err != nil {
		t.Fatal(err)
	}
	w := jobs.NewWatcher(nomad, nil, zerolog.Nop())
	w.Open(t.Context())
	defer w.Close()
	eventually.True(t, "the wrong job is known", func() bool { _, ok := w.Entry(key("app", "f")); return ok })
	entry, _ := w.Entry(key("app", "f"))
	if entry.Err == nil || !strings.Contains(entry.Err.Error(), "concurency") {
		t.Errorf("got %v", entry.Err)
	}
	if _, ok := w.Get("default", "app", "f"); ok {
		t.Error("it can be called")
	}
}

func TestFunctionRefusesWhatIsNone(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*api.Job)
		says   string // empty: not a function at all
	}{
		"no meta":        {func(j *api.Job) { j.Meta = nil }, ""},
		"other driver":   {func(j *api.Job) { j.TaskGroups[0].Tasks[0].Driver = "docker" }, ""},
		"no handler":     {func(j *api.Job) { delete(j.TaskGroups[0].Tasks[0].Config, "handler") }, ""},
		"wrong job name": {func(j *api.Job) { j.ID = new("other") }, "name the job app.f"},
		"wrong policy":   {func(j *api.Job) { j.TaskGroups[0].Scaling.Policy["buffer"] = 1.5 }, "scaling.policy.buffer"},
		"wrong cron": {func(j *api.Job) {
			j.TaskGroups[0].Scaling.Policy["schedule"] = []any{map[string]any{"cron": "99 8 * * *", "for": "1h", "min": 1}}
		}, "scaling.policy.schedule[0].cron"},
		"wrong zone": {func(j *api.Job) {
			j.TaskGroups[0].Scaling.Policy["schedule"] = map[string]any{"cron": "9 8 * * *", "timezone": "Europe/Brelin", "for": "1h", "min": 1}
		}, "Europe/Brelin"},
		"unknown policy": {func(j *api.Job) { j.TaskGroups[0].Scaling.Policy["bufer"] = 1 }, "scaling.policy.bufer"},
	} {
		j := job("app", "f")
		test.change(j)
		_, err := jobs.Function(j)
		if test.says == "" && !errors.Is(err, jobs.ErrNotFunction) || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	f, err := jobs.Function(job("app", "f"))
	if err != nil || f.Namespace != spec.DefaultNamespace || f.Scaling.ScaledownWindow != spec.Duration(2*time.Second) {
		t.Errorf("got %+v, %v", f, err)
	}
}

// badPolicy is a job whose scaling makes no sense though Nomad takes it.
func badPolicy(app, name string) *api.Job {
	j := job(app, name)
	j.TaskGroups[0].Scaling.Policy["scaledown_window"] = "-5s"
	return j
}

func TestTheLastGoodPolicyStaysInForce(t *testing.T) {
	nomad := nomadtest.Start(t)
	for _, j := range []*api.Job{job("app", "f"), badPolicy("app", "new"), job("app", "f")} {
		if err := jobs.Register(t.Context(), nomad, j); err != nil {
			t.Fatal(err)
		}
	}
	w := jobs.NewWatcher(nomad, nil, zerolog.Nop())
	w.Open(t.Context())
	defer w.Close()
	eventually.True(t, "both are known", func() bool { return len(w.List()) == 2 })
	if err := jobs.Register(t.Context(), nomad, badPolicy("app", "f")); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the policy is known to be wrong", func() bool { e, _ := w.Entry(key("app", "f")); return e.Policy != nil })
	if f, ok := w.Get("default", "app", "f"); !ok || f.Scaling.ScaledownWindow != spec.Duration(2*time.Second) || f.Scaling.Max != 7 {
		t.Errorf("the function has %+v, callable %v; want the policy that it had", f.Scaling, ok)
	}
	if f, ok := w.Get("default", "app", "new"); !ok || f.Scaling.ScaledownWindow != spec.DefaultScaledownWindow {
		t.Errorf("the function without a good policy has %+v, callable %v; want the default", f.Scaling, ok)
	}
	after := jobs.NewWatcher(nomad, nil, zerolog.Nop()) // as after a restart: it reads the job's history
	after.Open(t.Context())
	defer after.Close()
	eventually.True(t, "a new watcher finds the last good policy", func() bool {
		f, ok := after.Get("default", "app", "f")
		return ok && f.Scaling.ScaledownWindow == spec.Duration(2*time.Second)
	})
}

// TestScheduleBlocksComeAsPeopleWriteThem: Nomad's own parser reads the HCL.
func TestScheduleBlocksComeAsPeopleWriteThem(t *testing.T) {
	nomad := nomadtest.Start(t)
	parsed, err := nomad.Jobs().ParseHCL(`
job "app.f" {
  datacenters = ["*"]
  meta = { "freshet.app" = "app", "freshet.function" = "f" }
  group "worker" {
    scaling {
      max = 9
      policy {
        schedule {
          cron = "30 8 * * 1-5"
          for  = "10h"
          min  = 2
        }
        schedule {
          cron     = "0 9 * * 6"
          timezone = "Europe/Berlin"
          for      = "1h"
          min      = 3
        }
      }
    }
    task "guest" {
      driver = "freshet"
      config {
        code = "/srv/program"
        handler { type = "go" }
      }
    }
  }
}`, true)
	if err != nil {
		t.Fatal(err)
	}
	f, err := jobs.Function(parsed)
	if err != nil {
		t.Fatal(err)
	}
	want := []spec.Schedule{
		{Cron: "30 8 * * 1-5", For: spec.Duration(10 * time.Hour), Min: 2},
		{Cron: "0 9 * * 6", Timezone: "Europe/Berlin", For: spec.Duration(time.Hour), Min: 3},
	}
	if !slices.Equal(f.Scaling.Schedules, want) {
		t.Errorf("got %+v", f.Scaling.Schedules)
	}
}
