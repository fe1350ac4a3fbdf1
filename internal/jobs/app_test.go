package jobs_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/nomadtest"
)

// foreign is somebody else's job.
func foreign(id string) *api.Job {
	j := job("x", "y")
	j.ID, j.Name, j.Meta = new(id), new(id), map[string]string{"owner": "somebody"}
	return j
}

func put(t *testing.T, nomad *api.Client, all ...*api.Job) {
	t.Helper()
	for _, j := range all {
		if _, _, err := nomad.Jobs().Register(j, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, nomad *api.Client, id string) *api.Job {
	t.Helper()
	j, _, err := nomad.Jobs().Info(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestWhatIsNotFreshetsStays(t *testing.T) {
	nomad := nomadtest.Start(t)
	other := job("elsewhere", "f") // a function's job under another function's name
	other.ID = new("app.taken")
	put(t, nomad, foreign("app.f"), other, foreign("app.f.warm"))
	for _, name := range []string{"f", "taken"} {
		id := "app." + name
		before := *read(t, nomad, id).JobModifyIndex
		err := jobs.Register(t.Context(), nomad, job("app", name))
		var refused *jobs.ForeignError
		if !errors.As(err, &refused) || refused.Job != id || !strings.Contains(err.Error(), "nomad job stop -purge -namespace default "+id) {
			t.Errorf("%s: %v", id, err)
		}
		if after := read(t, nomad, id); *after.JobModifyIndex != before {
			t.Errorf("%s was changed", id)
		}
	}
	var refused *jobs.ForeignError
	if err := jobs.Stop(t.Context(), nomad, "default", "app.f"); !errors.As(err, &refused) || *read(t, nomad, "app.f").Stop {
		t.Errorf("stop: %v", err)
	}
	if err := jobs.PurgeWarmed(t.Context(), nomad, jobs.Warmed{Namespace: "default", App: "app", Job: "app.f.warm"}); !errors.As(err, &refused) {
		t.Errorf("purge: %v", err)
	}
	all, err := jobs.App(t.Context(), nomad, "default", "app")
	if err != nil || len(all) != 2 || !all[0].Foreign || !all[1].Foreign {
		t.Errorf("got %+v, %v", all, err)
	}
	if left, err := jobs.ListWarmed(t.Context(), nomad); err != nil || len(left) != 0 {
		t.Errorf("got %+v, %v", left, err)
	}
}

func TestWarmedJobsOfDeadGatewaysAreFound(t *testing.T) {
	nomad := nomadtest.Start(t)
	left := job("app", "f")
	left.ID, left.Name, left.Type, left.Meta = new("app.f.warm"), new("app.f"), new(api.JobTypeBatch), map[string]string{jobs.MetaWarm: "app.f"}
	left.TaskGroups[0].Scaling = nil
	left.TaskGroups[0].Update = nil
	put(t, nomad, left)
	all, err := jobs.ListWarmed(t.Context(), nomad)
	if err != nil || len(all) != 1 || all[0] != (jobs.Warmed{Namespace: "default", App: "app", Job: "app.f.warm"}) {
		t.Fatalf("got %+v, %v", all, err)
	}
	if err := jobs.PurgeWarmed(t.Context(), nomad, all[0]); err != nil {
		t.Fatal(err)
	}
	if all, err = jobs.ListWarmed(t.Context(), nomad); err != nil || len(all) != 0 {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := jobs.PurgeWarmed(t.Context(), nomad, jobs.Warmed{Namespace: "default", App: "app", Job: "app.f.warm"}); err != nil {
		t.Errorf("twice: %v", err)
	}
}

// TestJobsAreRestored as they were, with what only a person wrote, also while their counts change.
func TestJobsAreRestored(t *testing.T) {
	nomad := nomadtest.Start(t)
	mine := job("app", "f")
	mine.Constraints = []*api.Constraint{api.NewConstraint("${attr.kernel.name}", "=", "linux")}
	if err := jobs.Register(t.Context(), nomad, mine); err != nil {
		t.Fatal(err)
	}
	all, err := jobs.App(t.Context(), nomad, "default", "app")
	if err != nil || len(all) != 1 || all[0].Foreign || all[0].Err != nil || all[0].Spec.Name != "f" {
		t.Fatalf("got %+v, %v", all, err)
	}
	var scaling sync.WaitGroup
	scaling.Go(func() {
		for i := range 50 {
			if _, _, err := nomad.Jobs().Scale("app.f", "worker", new(1+i%5), "", false, nil, nil); err != nil {
				t.Error(err)
			}
		}
	})
	for range 10 {
		changed := job("app", "f")
		changed.Meta[jobs.MetaVersion] = "2"
		if err := jobs.Register(t.Context(), nomad, changed); err != nil {
			t.Error(err)
		}
		if err := jobs.Restore(t.Context(), nomad, all[0]); err != nil {
			t.Error(err)
		}
	}
	scaling.Wait()
	if _, _, err := nomad.Jobs().Scale("app.f", "worker", new(5), "", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := jobs.Restore(t.Context(), nomad, all[0]); err != nil {
		t.Fatal(err)
	}
	after := read(t, nomad, "app.f")
	if after.Meta[jobs.MetaVersion] != "1" || len(after.Constraints) != 1 || *after.TaskGroups[0].Count != 5 {
		t.Errorf("got version %s, %d constraints, count %d", after.Meta[jobs.MetaVersion], len(after.Constraints), *after.TaskGroups[0].Count)
	}
	if err := jobs.Stop(t.Context(), nomad, "default", "app.f"); err != nil {
		t.Fatal(err)
	}
	if all, err = jobs.App(t.Context(), nomad, "default", "app"); err != nil || len(all) != 1 || !all[0].Stopped {
		t.Errorf("got %+v, %v", all, err)
	}
}
