package gateway_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// demo is a manifest of one function, told apart by its variable.
func demo(t *testing.T, version string) []byte {
	t.Helper()
	data, err := json.Marshal(spec.Manifest{Format: spec.ManifestVersion, App: "demo", Functions: []spec.Function{{
		App: "demo", Name: "echo", Version: version, Env: map[string]string{"V": version},
		Config: spec.Config{Handler: &spec.Handler{Type: "go"}, Code: "/srv/demo"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func past(t *testing.T, r *rig) []deploys.Deploy {
	t.Helper()
	got := r.do(t, http.MethodGet, "/v1/apps/demo/deploys", nil, nil)
	var list []deploys.Deploy
	if err := json.Unmarshal(got.body, &list); err != nil || got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	return list
}

func newDeployRig(t *testing.T) (*rig, *registered) {
	t.Helper()
	into := &registered{}
	nats := startNATS(t, t.TempDir(), 0)
	return newRig(t, nats.ClientURL(), functions(echo()), func(c *gateway.Config) { c.Jobs = into }).up(t), into
}

func TestPlanChangesNothing(t *testing.T) {
	r, into := newDeployRig(t)
	got := r.do(t, http.MethodPut, "/v1/apps/demo?plan=true", demo(t, "v2"), nil)
	if got.status != http.StatusOK || !strings.Contains(string(got.body), `{"name":"env.V","new":"\"v2\""}`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	if len(into.functions) != 0 || len(into.stopped) != 0 || len(past(t, r)) != 0 {
		t.Errorf("registered %v, stopped %v, recorded %v", into.functions, into.stopped, past(t, r))
	}
}

func TestRollback(t *testing.T) {
	r, into := newDeployRig(t)
	if got := r.do(t, http.MethodPost, "/v1/apps/demo/rollback", nil, nil); got.status != http.StatusNotFound {
		t.Errorf("without a deploy: %d %s", got.status, got.body)
	}
	for _, version := range []string{"v1", "v2", "v3"} {
		if got := r.do(t, http.MethodPut, "/v1/apps/demo?message=to+"+version+"&commit=c0ffee", demo(t, version), nil); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	list := past(t, r)
	if len(list) != 3 || list[0].Number != 3 || list[0].Message != "to v3" || list[2].Version != "v1" || list[2].Commit != "c0ffee" {
		t.Fatalf("got %+v", list)
	}
	for _, before := range list[1:] {
		if got := r.do(t, http.MethodPost, "/v1/apps/demo/rollback?number="+strconv.Itoa(before.Number), nil, nil); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
		if last := into.functions[len(into.functions)-1]; !cmp.Equal(before.Functions[0], last) || last.Env["V"] != before.Version {
			t.Errorf("registered %+v, want %+v", last, before.Functions[0])
		}
	}
	if got := r.do(t, http.MethodPost, "/v1/apps/demo/rollback", nil, nil); got.status != http.StatusOK { // the one before the last
		t.Fatalf("%d %s", got.status, got.body)
	}
	after := past(t, r)
	if len(after) != 6 || after[0].Of != 4 || after[0].Version != after[2].Version {
		t.Errorf("got %+v", after)
	}
	for _, number := range []string{"0", "x", "-1"} {
		if got := r.do(t, http.MethodPost, "/v1/apps/demo/rollback?number="+number, nil, nil); got.status != http.StatusBadRequest {
			t.Errorf("number %s: %d %s", number, got.status, got.body)
		}
	}
}

func TestOldDeploysAreForgotten(t *testing.T) {
	r, _ := newDeployRig(t)
	for i := range deploys.Kept + 3 {
		if got := r.do(t, http.MethodPut, "/v1/apps/demo", demo(t, "v"+strconv.Itoa(i)), nil); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	list := past(t, r)
	if len(list) != deploys.Kept || list[0].Number != deploys.Kept+3 || list[len(list)-1].Number != 4 {
		t.Errorf("kept %d, %d to %d", len(list), list[len(list)-1].Number, list[0].Number)
	}
	if got := r.do(t, http.MethodPost, "/v1/apps/demo/rollback?number=3", nil, nil); got.status != http.StatusNotFound {
		t.Errorf("a forgotten one: %d %s", got.status, got.body)
	}
}

func TestWhatDoesNotStartIsNotDeployed(t *testing.T) {
	r, into := newDeployRig(t)
	got := r.do(t, http.MethodPut, "/v1/apps/demo?warm=true", demo(t, "broken"), nil)
	if got.header.Get("Freshet-Error") != "start" || !strings.Contains(string(got.body), "function echo does not start, so nothing was deployed: no such file") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if len(into.functions) != 0 || len(past(t, r)) != 0 {
		t.Errorf("registered %v, recorded %v", into.functions, past(t, r))
	}
	if got := r.do(t, http.MethodPut, "/v1/apps/demo?warm=true", demo(t, "v2"), nil); got.status != http.StatusOK || len(into.functions) != 1 {
		t.Errorf("%d %s", got.status, got.body)
	}
}
