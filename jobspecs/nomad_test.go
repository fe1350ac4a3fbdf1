package jobspecs_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/zclconf/go-cty/cty"
	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/jobspecs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// TestNomadKeepsGroupsAndPolicy: what a real Nomad makes of a function with kinds of GPUs says the same as its spec.
func TestNomadKeepsGroupsAndPolicy(t *testing.T) {
	nomad := nomadtest.Start(t)
	want := spec.Function{
		App: "llm", Name: "generate", Priority: 80,
		Config:    spec.Config{Code: "/srv/llm", Handler: &spec.Handler{Type: spec.HandlerGo, Entry: "generate"}},
		Resources: spec.Resources{GPUs: 2, GPUKinds: []string{"h100", "a100-80gb", "nvidia/gpu", spec.AnyGPU}},
		Scaling: spec.Scaling{
			Min: 1, Max: 20, BacklogTarget: spec.Duration(time.Minute), StartsPerMinute: 6, PredictPeriod: spec.Duration(24 * time.Hour),
			Schedules: []spec.Schedule{{Cron: "30 8 * * 1-5", Timezone: "Europe/Berlin", For: spec.Duration(10 * time.Hour), Min: 2}},
		},
	}
	job, err := jobspecs.Render(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := jobs.Register(t.Context(), nomad, job); err != nil {
		t.Fatal(err)
	}
	kept, _, err := nomad.Jobs().Info(want.JobID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := jobs.Function(kept)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.WithDefaults(), got, cmpopts.EquateEmpty()); d != "" {
		t.Fatal(d)
	}
	names := make([]string, 0, len(kept.TaskGroups))
	for _, group := range kept.TaskGroups {
		names = append(names, *group.Name)
		if *group.Scaling.Min != 0 || *group.Scaling.Max != 20 {
			t.Errorf("group %s has %d to %d workers: it could not go to 0", *group.Name, *group.Scaling.Min, *group.Scaling.Max)
		}
	}
	if d := cmp.Diff([]string{"worker", "worker-a100-80gb", "worker-nvidia-gpu", "worker-any"}, names); d != "" {
		t.Error(d)
	}
}

// TestWrittenJobSaysTheSame: the text of a function's job, read by a real Nomad, is the function's spec.
func TestWrittenJobSaysTheSame(t *testing.T) {
	nomad := nomadtest.Start(t)
	rapid.Check(t, func(t *rapid.T) {
		want := function(t)
		for name, value := range want.Env {
			want.Env[name] = cty.StringVal(value).AsString() // HCL composes characters
		}
		text, err := jobspecs.HCL(want)
		if err != nil {
			t.Fatal(err)
		}
		job, err := nomad.Jobs().ParseHCL(string(text), true)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		got, err := jobs.Function(job)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if d := cmp.Diff(want.WithDefaults(), got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("%s in\n%s", d, text)
		}
	})
}
