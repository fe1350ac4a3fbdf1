package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// calledEvery is the function demo.echo, called by these clocks.
func calledBy(clocks ...spec.CallSchedule) spec.Function {
	f := echo()
	f.Schedules = clocks
	return f
}

// schedules are those that a gateway lists.
func (r *rig) schedules(t *testing.T) []scheduled {
	t.Helper()
	a := r.do(t, http.MethodGet, "/v1/schedules", nil, nil)
	var list []scheduled
	if a.status != http.StatusOK || json.Unmarshal(a.body, &list) != nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return list
}

// TestSchedulesOfASpecComeAndGoWithIt in two gateways, which see the function's deploys at once.
func TestSchedulesOfASpecComeAndGoWithIt(t *testing.T) {
	url, _ := newEchoRig(t)
	live := newLive(calledBy(spec.CallSchedule{Every: spec.Duration(time.Second), Input: `{"n": 1}`}))
	r := newRig(t, url, live).up(t)
	newRig(t, url, live).up(t)
	inputs := make(chan string, 1000)
	startWorker(t, url, 4, func(d *queue.Delivery) queue.Result {
		inputs <- string(d.Body)
		return queue.Result{ContentType: d.ContentType, Body: d.Body}
	})
	var first scheduled
	eventually.True(t, "the schedule is there", func() bool {
		list := r.schedules(t)
		if len(list) == 1 {
			first = list[0]
		}
		return len(list) == 1 && first.Name == spec.ScheduleName
	})
	if input := <-inputs; input != `{"n":1}` {
		t.Errorf("called with %s", input)
	}
	path := "/v1/functions/demo/echo/schedules/" + spec.ScheduleName
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		if status, kind := r.problemOf(t, method, path, []byte(`{"every":"1h"}`), nil); status != http.StatusConflict || kind != "conflict" {
			t.Errorf("%s of what the spec says: %d %s", method, status, kind)
		}
	}
	r.schedule(t, http.MethodPost, path+"/pause", "", http.StatusOK)

	deploy := func(f spec.Function) {
		t.Helper()
		if err := live.Register(context.Background(), f); err != nil {
			t.Fatal(err)
		}
	}
	deploy(calledBy(
		spec.CallSchedule{Every: spec.Duration(time.Second), Input: `{"n":1}`}, spec.CallSchedule{Name: "often", Every: spec.Duration(time.Second)},
	))
	eventually.True(t, "a second one is there, and the first is paused as before", func() bool {
		list := r.schedules(t)
		return len(list) == 2 && list[0].Paused && !list[1].Paused
	})
	deploy(calledBy(spec.CallSchedule{Cron: "0 9 * * *"}))
	eventually.True(t, "one has changed", func() bool {
		for _, one := range r.schedules(t) {
			if one.Name == spec.ScheduleName && one.Cron == "0 9 * * *" && one.Paused {
				return true
			}
		}
		return false
	})
	eventually.True(t, "the other one is gone", func() bool { return len(r.schedules(t)) == 1 })
	deploy(echo())
	eventually.True(t, "none is left", func() bool { return len(r.schedules(t)) == 0 })
}

// TestWrongSchedulesOfASpecAreRefused by the deploy, with the field.
func TestWrongSchedulesOfASpecAreRefused(t *testing.T) {
	_, r := newEchoRig(t)
	for field, clock := range map[string]spec.CallSchedule{
		"schedule[0].cron":      {Cron: "at nine"},
		"schedule[0].time_zone": {Cron: "0 9 * * *", TimeZone: "Berlin"},
		"schedule[0].every":     {Every: spec.Duration(time.Millisecond)},
		"schedule[0].missed":    {Every: spec.Duration(time.Hour), Missed: "some"},
		"schedule[0].method":    {Every: spec.Duration(time.Hour), Method: "go"},
		"schedule[0].input":     {Every: spec.Duration(time.Hour), Input: "{"},
	} {
		f := calledBy(clock)
		f.Code, f.Handler = "/srv/echo", &spec.Handler{Type: spec.HandlerGo, Entry: "echo"}
		manifest, err := json.Marshal(spec.Manifest{Format: spec.ManifestVersion, App: "demo", Functions: []spec.Function{f}})
		if err != nil {
			t.Fatal(err)
		}
		a := r.do(t, http.MethodPut, "/v1/apps/demo?plan=true", manifest, nil)
		if a.status != http.StatusBadRequest || !strings.Contains(string(a.body), field) || !strings.Contains(string(a.body), string(wire.KindInput)) {
			t.Errorf("%s: %d %s", field, a.status, a.body)
		}
	}
}
