package spec_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

func TestWrongWaysToCallNameTheField(t *testing.T) {
	batching := func(size int, wait time.Duration) func(*spec.Function) {
		return func(f *spec.Function) { f.Batching = spec.Batching{MaxSize: size, Wait: spec.Duration(wait)} }
	}
	parameter := func(p ...spec.Parameter) func(*spec.Function) { return func(f *spec.Function) { f.Parameters = p } }
	for name, test := range map[string]struct {
		field  string
		change func(*spec.Function)
	}{
		"a large batch":       {"batching.max_size", batching(spec.MaxBatchSize+1, 0)},
		"a batch of none":     {"batching.max_size", batching(0, time.Second)},
		"a batch of less":     {"batching.max_size", batching(-1, 0)},
		"a long wait":         {"batching.wait", batching(2, time.Hour)},
		"too many slots":      {"batching.max_size", func(f *spec.Function) { f.Concurrency = 100; batching(101, 0)(f) }},
		"commands in batches": {"batching", func(f *spec.Function) { f.Handler.Type, f.Code, f.Image = spec.HandlerExec, "", "x"; batching(2, 0)(f) }},
		"Python in batches": {"batching", func(f *spec.Function) {
			f.Handler, f.Code, f.Image = &spec.Handler{Type: spec.HandlerPython, Entry: "app:f"}, "", "x"
			batching(2, 0)(f)
		}},
		"methods in batches":     {"batching", func(f *spec.Function) { f.Methods = []string{"a", "b"}; batching(2, 0)(f) }},
		"a rate below 0":         {"rate.per_second", func(f *spec.Function) { f.Rate.PerSecond = -1 }},
		"no rate":                {"rate.per_second", func(f *spec.Function) { f.Rate.PerSecond = math.NaN() }},
		"a burst without a rate": {"rate.burst", func(f *spec.Function) { f.Rate.Burst = 1 }},
		"a method's name":        {"methods[1]", func(f *spec.Function) { f.Methods = []string{"a", "b c"} }},
		"a method twice":         {"methods[1]", func(f *spec.Function) { f.Methods = []string{"a", "a"} }},
		"a parameter's name":     {"parameter[0].name", parameter(spec.Parameter{Name: "a.b", Type: "int"})},
		"a parameter twice":      {"parameter[1].name", parameter(spec.Parameter{Name: "a", Type: "int"}, spec.Parameter{Name: "a", Type: "int"})},
		"a parameter's type":     {"parameter[0].type", parameter(spec.Parameter{Name: "a", Type: "float"})},
		"a parameter's default":  {"parameter[0].default", parameter(spec.Parameter{Name: "a", Type: "int", Default: new("x")})},
		"workers of no values": {"scaling.min", func(f *spec.Function) {
			parameter(spec.Parameter{Name: "a", Type: "int"})(f)
			f.Scaling.Min = 1
		}},
		"a pool's name": {"name", func(f *spec.Function) {
			f.Name += "~xyz"
			parameter(spec.Parameter{Name: "a", Type: "int"})(f)
			f.Env = map[string]string{spec.ArgumentsEnv: "{}"}
		}},
		"a pool without arguments": {"env." + spec.ArgumentsEnv, func(f *spec.Function) { f.Name += "~0123456789abcdef" }},
	} {
		t.Run(name, func(t *testing.T) {
			f := valid()
			test.change(&f)
			var wrong *spec.ValidationError
			if err := f.Validate(); !errors.As(err, &wrong) || len(wrong.Fields) != 1 || wrong.Fields[0].Field != test.field || wrong.Fields[0].Mend == "" {
				t.Errorf("got %v, want one about %s with a mend", err, test.field)
			}
		})
	}
}

func TestWorkersHoldTheirBatches(t *testing.T) {
	f := spec.Function{Config: spec.Config{Concurrency: 3, Batching: spec.Batching{MaxSize: 8}, Rate: spec.Rate{PerSecond: 1.5}}}.WithDefaults()
	if f.Slots() != 24 || f.Scaling.TargetInflight != 24 || f.Rate.Burst != 2 {
		t.Errorf("%d slots, a target of %d, a burst of %d", f.Slots(), f.Scaling.TargetInflight, f.Rate.Burst)
	}
}
