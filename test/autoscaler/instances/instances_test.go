package instances

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad-autoscaler/sdk"
	"github.com/hashicorp/nomad/api"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-dev/freshet/internal/consultest"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/jobspecs"
	"github.com/freshet-dev/freshet/scheduler-ext/apm"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// TestTheNextOneActsAfterAKill: two instances, one of them killed in the middle of a burst over many functions. The other goes on
// within three seconds, and no count passes its maximum nor is set by the old one any more. With a lease in NATS and a lock in
// Consul.
func TestTheNextOneActsAfterAKill(t *testing.T) {
	t.Run("nats", func(t *testing.T) { killInABurst(t, newRig(t)) })
	t.Run("consul", func(t *testing.T) {
		r := newRig(t)
		r.consul = consultest.Start(t)
		killInABurst(t, r)
	})
}

func killInABurst(t *testing.T, r *rig) {
	t.Helper()
	const functions = 40
	for number := range functions {
		if err := r.register(t.Context(), number); err != nil {
			t.Fatal(err)
		}
	}
	first, second := r.start(t), r.start(t)
	acting := r.awaitActing(t, first, second)
	eventually.True(t, "it scales", func() bool {
		r.hint(t, function(0))
		return len(r.scalings(t, function(0))) > 0
	})
	old := lease(r.scalings(t, function(0))[0])
	for number := range functions / 2 {
		r.publish(t, function(number), 9)
	}
	acting.kill(t)
	killed := time.Now()
	for number := functions / 2; number < functions; number++ {
		r.publish(t, function(number), 100)
	}
	took := time.Duration(0)
	for number := range functions {
		want := int64(3)
		if number >= functions/2 {
			want = 5
		}
		var events []api.ScalingEvent
		eventually.True(t, "the calls have their workers", func() bool {
			events = r.scalings(t, function(number))
			reached := slices.IndexFunc(events, func(event api.ScalingEvent) bool { return *event.Count == want })
			// Here are no nodes: some seconds later the functions share what has a place, which is nothing.
			events = events[:reached+1]
			return reached >= 0
		})
		leases := make([]float64, 0, len(events))
		for _, event := range events {
			leases = append(leases, lease(event))
			if *event.Count > 5 {
				t.Errorf("f%d had a count of %d, over its maximum", number, *event.Count)
			}
			if *event.Count <= event.PreviousCount {
				t.Errorf("f%d was scaled from %d to %d while its calls wait", number, event.PreviousCount, *event.Count)
			}
			if after := time.Unix(0, int64(event.Time)).Sub(killed); lease(event) > old && (took == 0 || after < took) {
				took = after
			}
		}
		if !slices.IsSorted(leases) {
			t.Errorf("f%d was scaled under the leases %v: the old one acted after the new one", number, leases)
		}
	}
	t.Logf("the next instance scaled %s after the kill", took)
	if took == 0 || took > 3*time.Second {
		t.Errorf("the next instance scaled only %s after the kill", took)
	}
}

// TestIdleFunctionsCostNothing: 2,000 of them. The autoscaler's time stays low and flat, and any one wakes at once.
func TestIdleFunctionsCostNothing(t *testing.T) {
	const functions, hints = 2000, 100
	r := newRig(t)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for number := range functions {
		group.Go(func() error { return r.register(ctx, number) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	i := r.start(t)
	r.awaitActing(t, i)
	last := function(999) // by name
	eventually.True(t, "it knows the last one", func() bool {
		r.hint(t, last)
		return len(r.scalings(t, last)) > 0
	})
	const watch = 5 * time.Second
	share := func() float64 {
		before := i.cpu(t)
		select {
		case <-time.After(watch):
		case <-t.Context().Done():
		}
		return float64(i.cpu(t)-before) / float64(watch)
	}
	idle := slices.Min([]float64{share(), share(), share()})
	t.Logf("with %d functions it uses %.1f %% of a core", functions, 100*idle)
	if idle > 0.03 {
		t.Errorf("it uses %.1f %% of a core, want under 3", 100*idle)
	}
	var reactions []time.Duration
	for k := range hints {
		f := function(k * functions / hints)
		began := time.Now()
		r.hint(t, f)
		eventually.True(t, f.Name+" is scaled", func() bool { return len(r.scalings(t, f)) > 0 })
		reactions = append(reactions, time.Unix(0, int64(r.scalings(t, f)[0].Time)).Sub(began))
	}
	slices.Sort(reactions)
	t.Logf("a hint reaches Nomad in %s p50, %s p99", reactions[hints/2], reactions[hints*99/100])
	if p50 := reactions[hints/2]; p50 > 20*time.Millisecond {
		t.Errorf("a hint reaches Nomad in %s, want under 20 ms", p50)
	}
}

// TestASenselessPolicyIsToldAndTheLastOneHolds: in the answer to why, in an event and in a metric; others go on.
func TestASenselessPolicyIsToldAndTheLastOneHolds(t *testing.T) {
	r := newRig(t)
	for number := range 2 {
		if err := r.register(t.Context(), number); err != nil {
			t.Fatal(err)
		}
	}
	i := r.start(t)
	r.awaitActing(t, i)
	told := make(chan string, 100)
	sub, err := r.nc.Subscribe("freshet.events.default.app.f0.>", func(msg *nats.Msg) { told <- string(msg.Data) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	job, _, err := r.nomad.Jobs().Info("app.f0", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []map[string]any{{"scaledown_window": "-2s"}, {"scaledown_windw": "2s"}, {"buffer": "many"}} {
		job.TaskGroups[0].Scaling.Policy = wrong
		if err := jobs.Register(t.Context(), r.nomad, job); err != nil {
			t.Fatal(err)
		}
		select {
		case <-told:
		case <-time.After(eventually.Patience):
			t.Fatalf("no event tells of %v", wrong)
		}
		why := r.why(t, i, "f0")
		if len(why.Held) == 0 || why.Policy.Target != 4 {
			t.Errorf("%v: got %+v", wrong, why)
		}
	}
	for number := range 2 {
		r.publish(t, function(number), 9)
		eventually.True(t, "both are scaled by the good policy", func() bool {
			events := r.scalings(t, function(number))
			return len(events) > 0 && *events[len(events)-1].Count == 3
		})
	}
	if metrics := r.metrics(t, i); !strings.Contains(metrics, `freshet_autoscaler_policy_wrong{app="app",function="f0",namespace="default"} 1`) || strings.Contains(metrics, `function="f1"`) {
		t.Errorf("the metrics do not tell: %s", metrics)
	}
}

// TestWhatHasNoPlaceIsToldAsCapacity: on a Nomad without nodes nothing has a place. The plugin of nomad-autoscaler tells how much
// that is by kind, and the same after the instance that saw it happen was killed; with none that acts it tells nothing at all.
func TestWhatHasNoPlaceIsToldAsCapacity(t *testing.T) {
	r := newRig(t)
	for number, kinds := range [][]string{nil, {"h100", "any"}} {
		f := spec.Function{
			App: "app", Name: function(number).Name, Config: spec.Config{Code: "/srv/program", Handler: &spec.Handler{Type: spec.HandlerGo}},
			Resources: spec.Resources{GPUs: len(kinds), GPUKinds: kinds}, Scaling: spec.Scaling{Max: 5, TargetInflight: 4, ScaledownWindow: spec.Duration(time.Second)}, // a move that was cut short is over then
		}
		job, err := jobspecs.Render(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := jobs.Register(t.Context(), r.nomad, job); err != nil {
			t.Fatal(err)
		}
		r.publish(t, function(number), 9)
	}
	first, second := r.start(t), r.start(t)
	plugin := apm.New(t.Context(), hclog.NewNullLogger())
	if err := plugin.SetConfig(map[string]string{"autoscalers": first.address + ", " + second.address + "/", "nomad_address": r.address}); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"pending": 9, "pending/none": 3, "pending/h100": 6, "pending/any": 0, "nodes/gpu/4/h100": 2, "nodes/gpu/8": 2}
	told := func() map[string]float64 {
		answers := make(map[string]float64)
		for query := range want {
			if got, err := plugin.Query(query, sdk.TimeRange{}); err == nil {
				answers[query] = got[0].Value
			}
		}
		return answers
	}
	for round := range 2 {
		eventually.True(t, "the plugin tells what has no place", func() bool {
			answers := told()
			const resting = "pending/none" // the other function moves between its groups once more
			if got, answered := answers[resting]; round > 0 && answered && got != want[resting] {
				t.Fatalf("%s: told %v in a take-over, want %v or nothing", resting, got, want[resting])
			}
			return maps.Equal(answers, want)
		})
		acting := r.awaitActing(t, first, second)
		acting.kill(t)
		if acting == first {
			first = second
		}
		second = first
	}
	eventually.True(t, "nothing is told without an instance", func() bool { return len(told()) == 0 })
}

type whyAnswer struct {
	Held   []string
	Reason string
	Count  int
	Policy struct {
		Target int `json:"target_inflight"`
	}
}

func (r *rig) why(t *testing.T, i *instance, function string) whyAnswer {
	t.Helper()
	request, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, i.address+"/v1/scaling/app/"+function, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var why whyAnswer
	if err := json.NewDecoder(response.Body).Decode(&why); err != nil {
		t.Fatal(err)
	}
	return why
}

// TestAPersonsCountStands for the scale-down window, up and down, and a new version of the job does not.
func TestAPersonsCountStands(t *testing.T) {
	r := newRig(t)
	if err := r.register(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	i := r.start(t)
	r.awaitActing(t, i)
	r.publish(t, function(0), 9)
	last := func() (int64, string) {
		events := r.scalings(t, function(0))
		if len(events) == 0 {
			return -1, ""
		}
		return *events[len(events)-1].Count, events[len(events)-1].Message
	}
	eventually.True(t, "3 workers", func() bool { n, _ := last(); return n == 3 })
	set := time.Now()
	if _, _, err := r.nomad.Jobs().Scale("app.f0", "worker", new(1), "a person's own words", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "it says that a person set the count", func() bool {
		why := r.why(t, i, "f0")
		return why.Reason == "set by hand" && why.Count == 1
	})
	eventually.True(t, "3 workers again", func() bool { n, _ := last(); return n == 3 })
	if stood := time.Since(set); stood < 2*time.Second {
		t.Errorf("the person's count stood for %s, want the window of 2s", stood)
	}
	job, _, err := r.nomad.Jobs().Info("app.f0", nil)
	if err != nil {
		t.Fatal(err)
	}
	job.TaskGroups[0].Count = new(0) // as an edited file has it
	job.Meta[jobs.MetaVersion] = "2"
	set = time.Now()
	if _, _, err := r.nomad.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "a new version gets its workers", func() bool {
		job, _, err := r.nomad.Jobs().Info("app.f0", nil)
		return err == nil && *job.TaskGroups[0].Count == 3
	})
	if took := time.Since(set); took > time.Second {
		t.Errorf("a new version waited %s for its workers", took)
	}
}
