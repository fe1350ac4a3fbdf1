package deploys_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func function(name string, change func(*spec.Function)) spec.Function {
	f := spec.Function{App: "demo", Name: name, Config: spec.Config{Code: "/srv/demo", Handler: &spec.Handler{Type: spec.HandlerGo, Entry: name}}}
	if change != nil {
		change(&f)
	}
	return f
}

func TestCompare(t *testing.T) {
	changes, err := deploys.Compare(
		[]spec.Function{function("gone", nil), function("same", nil), function("other", func(f *spec.Function) { f.Env = map[string]string{"A": "1", "B": "2"} })},
		[]spec.Function{
			function("added", nil),
			function("same", func(f *spec.Function) { f.Concurrency = spec.DefaultConcurrency }), // what is the default anyway is no change
			function("other", func(f *spec.Function) { f.Env = map[string]string{"A": "3"}; f.Scaling.Max = 7 }),
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != 4 || changes[0].Action != deploys.Create || len(changes[0].Fields) == 0 {
		t.Fatalf("got %+v", changes)
	}
	want := []deploys.Change{
		{Function: "gone", Action: deploys.Delete},
		{Function: "other", Action: deploys.Update, Fields: []deploys.Field{
			{Name: "env.A", Old: `"1"`, New: `"3"`}, {Name: "env.B", Old: `"2"`}, {Name: "scaling.max", Old: "10", New: "7"},
		}},
		{Function: "same", Action: deploys.Keep},
	}
	if d := cmp.Diff(want, changes[1:]); d != "" {
		t.Error(d)
	}
}
