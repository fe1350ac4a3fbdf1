package gateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// manifest is that of an app with functions told apart by their variable, each NAME=VALUE.
func manifest(t *testing.T, functions ...string) []byte {
	t.Helper()
	m := spec.Manifest{Format: spec.ManifestVersion, App: "demo"}
	for _, f := range functions {
		name, version, _ := strings.Cut(f, "=")
		m.Functions = append(m.Functions, spec.Function{
			App: "demo", Name: name, Version: version, Env: map[string]string{"V": version},
			Config: spec.Config{Handler: &spec.Handler{Type: "go"}, Code: "/srv/demo"},
		})
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// versions are those of the functions that there are, by name.
func (r *registered) versions() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, job := range r.there {
		if !job.Foreign {
			all = append(all, job.Spec.Name+"="+job.Spec.Version)
		}
	}
	slices.Sort(all)
	return all
}

// deployed is the answer to a deploy.
type deployed struct {
	Unchanged bool
	Number    int
	Stopped   []string
}

func (r *rig) deploys(t *testing.T, path string, body []byte, want int) (answer, deployed) {
	t.Helper()
	a := r.do(t, http.MethodPut, path, body, nil)
	var view deployed
	if err := json.Unmarshal(a.body, &view); err != nil || a.status != want {
		t.Fatalf("PUT %s: %d %s, want %d", path, a.status, a.body, want)
	}
	return a, view
}

func TestADeployReplacesNoJobOfOthers(t *testing.T) {
	r, into := newDeployRig(t)
	into.put(jobs.Job{ID: "demo.b", Foreign: true})
	for _, path := range []string{"/v1/apps/demo", "/v1/apps/demo?plan=true", "/v1/apps/demo?ephemeral=true"} {
		got, _ := r.deploys(t, path, manifest(t, "a=1", "b=1"), http.StatusConflict)
		if text := string(got.body); got.header.Get("Freshet-Error") != "conflict" || !strings.Contains(text, "job demo.b") || !strings.Contains(text, "nomad job stop -purge -namespace default demo.b") {
			t.Errorf("%s: %s", path, text)
		}
	}
	if got := into.versions(); len(got) != 0 || len(past(t, r)) != 0 {
		t.Errorf("deployed %v", got)
	}
	r.deploys(t, "/v1/apps/demo", manifest(t, "a=1"), http.StatusOK) // the other job is no function of the app that it has no more
	if len(into.stopped) != 0 {
		t.Errorf("stopped %v", into.stopped)
	}
}

func TestADeployThatFailsLeavesAllAsItWas(t *testing.T) {
	r, into := newDeployRig(t)
	r.deploys(t, "/v1/apps/demo", manifest(t, "a=1", "b=1", "old=1"), http.StatusOK)
	before := into.versions()
	got, _ := r.deploys(t, "/v1/apps/demo", manifest(t, "a=2", "added=2", "b=refused"), http.StatusServiceUnavailable)
	if text := string(got.body); !strings.Contains(text, "job demo.b was not registered") || !strings.Contains(text, "the app is as it was: no such region") {
		t.Error(text)
	}
	if after := into.versions(); !slices.Equal(before, after) || len(past(t, r)) != 1 {
		t.Errorf("there were %v, there are %v; recorded %v", before, after, past(t, r))
	}
	for _, body := range [][]byte{manifest(t, "a=2", "a=3"), []byte(strings.Replace(string(manifest(t, "a=2", "b=2")), `"name":"b"`, `"name":"b","concurrency":-1`, 1))} {
		r.deploys(t, "/v1/apps/demo", body, http.StatusBadRequest)
	}
	if after := into.versions(); !slices.Equal(before, after) {
		t.Errorf("there were %v, there are %v", before, after)
	}
}

func TestADeployOfTheSameChangesNothing(t *testing.T) {
	r, into := newDeployRig(t)
	r.deploys(t, "/v1/apps/demo", manifest(t, "a=1", "b=1"), http.StatusOK)
	count := len(into.functions)
	_, again := r.deploys(t, "/v1/apps/demo?warm=true", manifest(t, "a=1", "b=1"), http.StatusOK)
	if !again.Unchanged || again.Number != 1 || len(into.functions) != count || len(past(t, r)) != 1 {
		t.Errorf("got %+v, registered %d more", again, len(into.functions)-count)
	}
	_, fewer := r.deploys(t, "/v1/apps/demo", manifest(t, "a=1"), http.StatusOK)
	if fewer.Unchanged || fewer.Number != 2 || !slices.Equal(fewer.Stopped, []string{"demo.b"}) {
		t.Errorf("got %+v", fewer)
	}
	into.put(jobs.Job{ID: "demo.a", Spec: spec.Function{App: "demo", Name: "a"}, Stopped: true})
	if _, after := r.deploys(t, "/v1/apps/demo", manifest(t, "a=1"), http.StatusOK); after.Unchanged || after.Number != 3 {
		t.Errorf("what was stopped is not there: %+v", after)
	}
}

// TestOfTwoDeploysAtOnceOneGoesOn, whichever gateways they go to.
func TestOfTwoDeploysAtOnceOneGoesOn(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	into := &registered{gate: make(chan struct{})}
	var gateways []*rig
	for range 2 {
		gateways = append(gateways, newRig(t, nats.ClientURL(), functions(), func(c *gateway.Config) { c.Jobs = into }).up(t))
	}
	first := make(chan int, 1)
	go func() {
		a, err := gateways[0].try(t.Context(), http.MethodPut, "/v1/apps/demo", manifest(t, "a=1", "b=1"), nil)
		if err != nil {
			t.Error(err)
		}
		first <- a.status
	}()
	locked := func() bool {
		keys, err := gateways[0].js(t).KeyValue(t.Context(), queue.DeploysBucket)
		if err != nil {
			t.Fatal(err)
		}
		_, err = keys.Get(t.Context(), "_lock.default.demo")
		return err == nil
	}
	eventually.True(t, "the first has begun", locked)
	for i, g := range gateways {
		for _, request := range [][2]string{{http.MethodPut, "/v1/apps/demo"}, {http.MethodPut, "/v1/apps/demo?ephemeral=true"}} {
			a := g.do(t, request[0], request[1], manifest(t, "a=2", "b=2"), nil)
			if a.status != http.StatusConflict || a.header.Get("Retry-After") == "" || !strings.Contains(string(a.body), "being deployed") {
				t.Errorf("gateway %d, %s: %d %s", i, request, a.status, a.body)
			}
		}
	}
	close(into.gate)
	if status := <-first; status != http.StatusOK || !slices.Equal(into.versions(), []string{"a=1", "b=1"}) || locked() {
		t.Errorf("the first: %d, there are %v, locked %v", status, into.versions(), locked())
	}
	gateways[1].deploys(t, "/v1/apps/demo", manifest(t, "a=2", "b=2"), http.StatusOK)
}

// TestALockOfADeadGatewayEnds, and until then keeps the deploys away.
func TestALockOfADeadGatewayEnds(t *testing.T) {
	r, into := newDeployRig(t)
	bucket, err := r.js(t).KeyValue(t.Context(), queue.DeploysBucket)
	if err != nil {
		t.Fatal(err)
	}
	left := jobs.Warmed{Namespace: "default", App: "demo", Job: "demo.a.warm"}
	for _, until := range []time.Duration{time.Minute, -time.Second} {
		if _, err := bucket.Put(t.Context(), "_lock.default.demo", fmt.Appendf(nil, `{"until":%q}`, time.Now().Add(until).Format(time.RFC3339Nano))); err != nil {
			t.Fatal(err)
		}
		want := http.StatusConflict
		if until < 0 {
			want = http.StatusOK
		}
		r.deploys(t, "/v1/apps/demo", manifest(t, "a=1"), want)
	}
	into.mu.Lock()
	into.warmed = []jobs.Warmed{left}
	into.mu.Unlock()
	second := newRig(t, r.nc.ConnectedUrl(), functions(), func(c *gateway.Config) { c.Jobs = into }).up(t) // one looks when it starts
	eventually.True(t, "what was left is gone", func() bool { all, _ := into.Warmed(t.Context()); return len(all) == 0 })
	second.close()
	history := deploys.History{Bucket: bucket}
	if _, err := bucket.Get(t.Context(), "_lock.default.demo"); err != jetstream.ErrKeyNotFound { //nolint:errorlint // as it is
		t.Errorf("the lock stays: %v", err)
	}
	ctx, release, err := history.Lock(t.Context(), "default", "demo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), "_lock.default.demo", []byte(`{}`)); err != nil { // somebody takes it over
		t.Fatal(err)
	}
	<-ctx.Done()
	release()
}

// TestWhatADeployStartsFirst: by default what replaces another version, where there is room.
func TestWhatADeployStartsFirst(t *testing.T) {
	r, into := newDeployRig(t)
	r.deploys(t, "/v1/apps/demo", manifest(t, "a=1", "new=broken"), http.StatusOK) // a new one replaces nothing
	for query, want := range map[string]int{
		"": http.StatusServiceUnavailable, "?warm=true": http.StatusServiceUnavailable, "?warm=maybe": http.StatusBadRequest,
	} {
		got, _ := r.deploys(t, "/v1/apps/demo"+query, manifest(t, "a=broken", "new=broken"), want)
		if want == http.StatusServiceUnavailable && (got.header.Get("Freshet-Error") != "start" || !strings.Contains(string(got.body), "no such file")) {
			t.Errorf("%q: %s", query, got.body)
		}
		if after := into.versions(); !slices.Contains(after, "a=1") {
			t.Errorf("%q: there are %v", query, after)
		}
	}
	r.deploys(t, "/v1/apps/demo", manifest(t, "a=crowded", "new=broken"), http.StatusOK)
	r.deploys(t, "/v1/apps/demo?warm=true", manifest(t, "a=crowded", "new=crowded"), http.StatusServiceUnavailable)
	scaled := bytes.Replace(manifest(t, "a=crowded", "new=broken"), []byte(`"scaling":{`), []byte(`"scaling":{"min":1`), 2)
	r.deploys(t, "/v1/apps/demo", scaled, http.StatusOK) // starts nothing that has not started
	r.deploys(t, "/v1/apps/demo?ephemeral=true", manifest(t, "a=broken"), http.StatusOK)
	r.deploys(t, "/v1/apps/demo", manifest(t, "a=1"), http.StatusOK)
	r.deploys(t, "/v1/apps/demo?warm=false", manifest(t, "a=broken"), http.StatusOK)
}
