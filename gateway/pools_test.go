package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// live are functions that are registered and stopped while a test runs.
type live struct {
	registered

	mu    sync.Mutex
	known fixed
}

func newLive(list ...spec.Function) *live {
	l := &live{known: functions(list...)}
	for _, f := range l.known {
		l.put(jobs.Job{ID: f.JobID(), Spec: f})
	}
	return l
}

func (l *live) Get(namespace, app, name string) (spec.Function, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known.Get(namespace, app, name)
}

func (l *live) Ready() bool { return true }

func (l *live) Entry(key queue.Function) (jobs.Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known.Entry(key)
}

func (l *live) List() []jobs.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known.List()
}

func (l *live) Await(context.Context, string, string, string, string) {}

func (l *live) Register(ctx context.Context, f spec.Function) error {
	f = f.WithDefaults()
	if err := l.registered.Register(ctx, f); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[queue.Function{Namespace: f.Namespace, App: f.App, Name: f.Name}] = f
	return nil
}

func (l *live) Stop(ctx context.Context, namespace, job string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, f := range l.known {
		if f.JobID() == job {
			delete(l.known, key)
		}
	}
	return l.registered.Stop(ctx, namespace, job)
}

// made are the functions that were registered so far.
func (l *live) made() []spec.Function {
	l.registered.mu.Lock()
	defer l.registered.mu.Unlock()
	return slices.Clone(l.functions)
}

// model is a class with two parameters.
func model() spec.Function {
	return spec.Function{App: "demo", Name: "model", Version: "v1", Config: spec.Config{
		Methods:    []string{"embed", "classify"},
		Parameters: []spec.Parameter{{Name: "size", Type: spec.ParameterString}, {Name: "layers", Type: spec.ParameterInt, Default: new("3")}},
	}}
}

const spawnModel = "/v1/functions/demo/model/spawn?method=embed"

func newModelRig(t *testing.T, list ...spec.Function) (string, *live, *rig) {
	t.Helper()
	known := newLive(append(list, model())...)
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	return url, known, newRig(t, url, known, func(c *gateway.Config) { c.Jobs, c.Streams.PoolIdle = known, 2*time.Second }).up(t)
}

// TestParametersHaveWorkersOfTheirOwn: each combination of values is a function, made once, that has the values in its environment.
func TestParametersHaveWorkersOfTheirOwn(t *testing.T) {
	url, known, r := newModelRig(t)
	for _, query := range []string{"&param.size=large", "&param.size=large&param.layers=3", "&param.layers=4&param.size=large"} {
		_ = r.show(t, http.MethodPost, spawnModel+query, []byte("1"), jsonHeader, http.StatusAccepted)
	}
	header := http.Header{"Freshet-Parameters": {`{"size":"large","layers":3}`}, "Content-Type": {"application/json"}}
	call := r.show(t, http.MethodPost, spawnModel, []byte("2"), header, http.StatusAccepted).Call
	made := known.made()
	if len(made) != 2 || made[0].Env[spec.ArgumentsEnv] != `{"layers":3,"size":"large"}` || made[1].Env[spec.ArgumentsEnv] != `{"layers":4,"size":"large"}` {
		t.Fatalf("made %+v", made)
	}
	for _, f := range made {
		if err := f.Validate(); err != nil && !strings.Contains(err.Error(), "code") {
			t.Errorf("%s: %v", f.JobID(), err)
		}
	}
	key := queue.Function{Namespace: "default", App: "demo", Name: made[0].Name}
	startWorkerFor(t, url, key, 1, func(*worker) func(*queue.Delivery) queue.Result {
		return func(d *queue.Delivery) queue.Result {
			return queue.Result{ContentType: d.ContentType, Body: append(d.Body, '0')}
		}
	})
	if got := r.show(t, http.MethodGet, "/v1/calls/"+call+"?wait=20s", nil, nil, http.StatusOK); string(got.Output) != "20" || got.Function != "demo."+key.Name {
		t.Errorf("the call of the first combination: %+v", got)
	}
	if a := r.do(t, http.MethodPost, "/v1/functions/demo/model/call?method=embed&param.size=large", []byte("3"), jsonHeader); a.status != http.StatusOK || string(a.body) != "30" {
		t.Errorf("a call that waits: %d %s", a.status, a.body)
	}
}

// TestCombinationsGoWhenNobodyCallsThem, unless they have calls left, and come back.
func TestCombinationsGoWhenNobodyCallsThem(t *testing.T) {
	url, known, r := newModelRig(t)
	_ = r.show(t, http.MethodPost, spawnModel+"&param.size=small", []byte("1"), jsonHeader, http.StatusAccepted)
	name := known.made()[0].Name
	used := time.Now()
	there := func() bool { _, ok := known.Get("default", "demo", name); return ok }
	for time.Since(used) < 4*time.Second { // its time of 2 s is over
		if !there() {
			t.Fatal("it went with a call left")
		}
		<-time.After(50 * time.Millisecond)
	}
	startWorkerFor(t, url, queue.Function{Namespace: "default", App: "demo", Name: name}, 1, func(*worker) func(*queue.Delivery) queue.Result {
		return func(d *queue.Delivery) queue.Result { return queue.Result{Body: d.Body} }
	})
	eventually.True(t, "it goes", func() bool { return !there() })
	_ = r.show(t, http.MethodPost, spawnModel+"&param.size=small", []byte("1"), jsonHeader, http.StatusAccepted)
	if !there() {
		t.Error("it did not come back")
	}
}

// TestDeploysReachCombinationsWhenTheyAreCalled, and what an app has no more takes its combinations along.
func TestDeploysReachCombinationsWhenTheyAreCalled(t *testing.T) {
	_, known, r := newModelRig(t)
	spawn := func() {
		_ = r.show(t, http.MethodPost, spawnModel+"&param.size=x", []byte("1"), jsonHeader, http.StatusAccepted)
	}
	spawn()
	next := model()
	next.Version, next.Code = "v2", "/bin/model"
	next.Handler = &spec.Handler{Type: spec.HandlerGo, Entry: "model"}
	deploy := func(list ...spec.Function) stoppedBy {
		manifest, err := json.Marshal(spec.Manifest{Format: spec.ManifestVersion, App: "demo", Functions: list})
		if err != nil {
			t.Fatal(err)
		}
		a := r.do(t, http.MethodPut, "/v1/apps/demo", manifest, jsonHeader)
		var view stoppedBy
		if err := json.Unmarshal(a.body, &view); err != nil || a.status != http.StatusOK {
			t.Fatalf("deploy: %d %s", a.status, a.body)
		}
		return view
	}
	if view := deploy(next); len(view.Stopped) > 0 || len(view.Changes) != 1 {
		t.Errorf("the deploy of another version: %+v", view)
	}
	spawn()
	made := known.made()
	if last := made[len(made)-1]; !last.IsPool() || last.Version != "v2" {
		t.Errorf("the last job is %s of version %s", last.JobID(), last.Version)
	}
	other := next
	other.Name = "other"
	if view := deploy(other); !slices.Contains(view.Stopped, "demo.model") || len(view.Stopped) != 2 {
		t.Errorf("the deploy without it stopped %q", view.Stopped)
	}
}

// stoppedBy is what a deploy says that it stopped and changed.
type stoppedBy struct {
	Stopped []string
	Changes []json.RawMessage
}

func TestWrongParametersAndMethodsAreRefused(t *testing.T) {
	_, known, r := newModelRig(t, echo())
	for path, want := range map[string]struct {
		status int
		say    string
	}{
		spawnModel: {400, "param.size"},
		spawnModel + "&param.size=a&param.layers=x":      {400, "whole number"},
		spawnModel + "&param.size=a&param.depth=1":       {400, "param.depth"},
		spawnModel + "&param.size=a&param.size=b":        {400, "once"},
		spawnEcho + "?param.size=a":                      {400, "param.size"},
		"/v1/functions/demo/model/spawn?param.size=a":    {400, "one of its methods"},
		"/v1/functions/demo/model/spawn?method=embet":    {404, "embed"},
		"/v1/functions/demo/model/map?param.size=a":      {400, "one of its methods"},
		"/v1/functions/demo/model/batch?param.size=a":    {400, "one of its methods"},
		"/v1/functions/demo/model/stream?param.size=a":   {400, "one of its methods"},
		"/v1/functions/demo/model/call?method=classify":  {400, "param.size"},
		"/v1/functions/demo/model~0123456789abcdef/call": {404, "no function"},
	} {
		a := r.do(t, http.MethodPost, path, []byte("1"), jsonHeader)
		if a.status != want.status || !strings.Contains(string(a.body), want.say) {
			t.Errorf("%s: %d %s, want %d that says %s", path, a.status, a.body, want.status, want.say)
		}
	}
	a := r.do(t, http.MethodPost, spawnModel, []byte("1"), http.Header{"Freshet-Parameters": {`{"size":`}})
	if a.status != http.StatusBadRequest {
		t.Errorf("half an object: %d %s", a.status, a.body)
	}
	if made := known.made(); len(made) > 0 {
		t.Errorf("made %+v", made)
	}
}

// TestTokenOfAFunctionIsForItsCombinations, and not for those of others.
func TestTokenOfAFunctionIsForItsCombinations(t *testing.T) {
	known := newLive(model(), echo())
	url := startNATS(t, t.TempDir(), 0).ClientURL()
	r := newRig(t, url, known, func(c *gateway.Config) { c.Jobs, c.Auth, c.RootToken = known, true, rootToken }).up(t)
	own := bearer(r.makeToken(t, `{"name":"own","verbs":["call","read"],"functions":["demo.model"]}`).Token)
	other := bearer(r.makeToken(t, `{"name":"other","verbs":["call","read"],"functions":["demo.echo"]}`).Token)
	a := r.do(t, http.MethodPost, spawnModel+"&param.size=a", []byte("1"), own)
	if a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.body)
	}
	pool := "/v1/functions/demo/" + known.made()[0].Name
	for name, test := range map[string]struct {
		token http.Header
		want  int
	}{"its own": {own, http.StatusOK}, "another's": {other, http.StatusForbidden}} {
		if a := r.do(t, http.MethodGet, pool, nil, test.token); a.status != test.want {
			t.Errorf("%s token: %d %s", name, a.status, a.body)
		}
	}
}
