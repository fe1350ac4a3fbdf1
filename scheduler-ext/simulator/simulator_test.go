package simulator_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/scheduler-ext/simulator"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func model() simulator.Model {
	return simulator.Model{Scale: 30 * time.Millisecond, Start: 300 * time.Millisecond, Concurrency: 4, Max: 1000}
}

// TestBetterThanTheReferences: on every shape some variant of ours has no more cost and no more wait than each reference. LONG=1
// takes more functions.
func TestBetterThanTheReferences(t *testing.T) {
	const length, calls = 2 * time.Hour, 2000 // of a function
	functions := 15
	if os.Getenv("LONG") != "" {
		functions = 50
	}
	for _, shape := range simulator.Shapes() {
		trace, err := simulator.Generate(shape.Name, functions, functions*calls, length, 1)
		if err != nil {
			t.Fatal(err)
		}
		var results []simulator.Result
		for _, p := range append(simulator.Variants(4), simulator.References(4)...) {
			results = append(results, simulator.Run(trace, length, model(), p))
		}
		for _, v := range simulator.Compare(results) {
			t.Logf("%-9s %-34s cost %8.0f s, wait p50 %7s p99 %8s mean %7s | ours %-22s cost %8.0f s, p50 %7s p99 %8s mean %7s", shape.Name,
				v.Reference.Policy, v.Reference.Cost.Seconds(), round(v.Reference.P50), round(v.Reference.P99), round(v.Reference.Mean),
				v.Ours.Policy, v.Ours.Cost.Seconds(), round(v.Ours.P50), round(v.Ours.P99), round(v.Ours.Mean))
			if !v.Better {
				t.Errorf("%s: nothing of ours beats %s", shape.Name, v.Reference.Policy)
			}
		}
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// TestTenThousandFunctionsRunWithinAMinute also with a million calls that are queued at once.
func TestTenThousandFunctionsRunWithinAMinute(t *testing.T) {
	const length = time.Hour
	trace, err := simulator.Generate("batch", 10_000, 1_000_000, length, 1)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	result := simulator.Run(trace, length, model(), simulator.Ours("ours", spec.Scaling{Max: 1000}, 4))
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	t.Logf("%d calls of %d functions in %s: wait p50 %s, p99 %s", result.Calls, len(trace), time.Since(began), result.P50, result.P99)
	if result.Calls != trace.Calls() || result.Calls < 990_000 {
		t.Errorf("%d calls ran, want all of %d", result.Calls, trace.Calls())
	}
}

// TestSteadyLoadMovesNothing: under a load that never changes the count rises to the need once, and moves now and then at most.
func TestSteadyLoadMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.IntRange(10, 1000).Draw(t, "every")) * time.Millisecond
		length := time.Duration(rapid.IntRange(1, 5000).Draw(t, "length")) * time.Millisecond
		window := time.Duration(rapid.IntRange(5, 60).Draw(t, "window")) * time.Second
		concurrency := rapid.IntRange(1, 8).Draw(t, "concurrency")
		var calls []simulator.Call
		for at := time.Duration(0); at < 20*time.Minute; at += every {
			calls = append(calls, simulator.Call{At: at, Length: length})
		}
		m := model()
		m.Concurrency = concurrency
		p := simulator.Ours("ours", spec.Scaling{Max: 1000, ScaledownWindow: spec.Duration(window)}, concurrency)
		result := simulator.Run(simulator.Trace{calls}, 20*time.Minute, m, p)
		begin := int((m.Scale+2*m.Start+length)/every) + int(length/every)/concurrency // the rise, a call at a time at worst
		windows := int(20 * time.Minute / window)
		if result.Changes > begin+20+windows/6 { // each fall by one and back lengthens the window
			t.Fatalf("%d changes under a steady load, in %d windows", result.Changes, windows)
		}
	})
}

func TestRead(t *testing.T) {
	trace, err := simulator.Read(strings.NewReader("# function, at, length\na,1.5,0.25\nb,2,1\na,0.5,3\n"))
	if err != nil || len(trace) != 2 || trace[0][0] != (simulator.Call{At: 500 * time.Millisecond, Length: 3 * time.Second}) {
		t.Errorf("got %+v, %v", trace, err)
	}
	for _, text := range []string{"a,1", "a,x,1", "a,1,-1", "a,NaN,1", "a,1e300,1"} {
		if _, err := simulator.Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: got %v", text, err)
		}
	}
	if _, err := simulator.Generate("spiral", 1, 1, time.Hour, 1); err == nil || !strings.Contains(err.Error(), "constant") {
		t.Errorf("got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("a,1.5,0.25\n# x\nb,2,1")
	f.Fuzz(func(t *testing.T, text string) {
		trace, err := simulator.Read(strings.NewReader(text))
		if err == nil {
			for _, calls := range trace {
				if len(calls) == 0 {
					t.Fatal("a function without calls")
				}
			}
		}
	})
}

// TestAWorkerServesItsSlotsAndNoMore checks the model itself by hand: two calls at once on one slot.
func TestAWorkerServesItsSlotsAndNoMore(t *testing.T) {
	m := simulator.Model{Scale: time.Second, Concurrency: 1, Max: 1}
	trace := simulator.Trace{{{At: 0, Length: 10 * time.Second}, {At: 0, Length: 10 * time.Second}}}
	result := simulator.Run(trace, time.Hour, m, simulator.Ours("ours", spec.Scaling{Max: 1, ScaledownWindow: spec.Duration(20 * time.Second)}, 1))
	if result.P50 != 11*time.Second || result.Mean != 6*time.Second {
		t.Errorf("waits of %s in the mean and %s, want 6s and 11s", result.Mean, result.P50)
	}
	if result.Cost < 41*time.Second || result.Cost > 43*time.Second {
		t.Errorf("a cost of %s, want start, two calls and the window: 41s", result.Cost)
	}
}

func TestPlotShowsEveryPolicy(t *testing.T) {
	var out strings.Builder
	results := []simulator.Result{{Policy: "a<b", Family: "freshet", Cost: time.Hour, P99: time.Second}, {Policy: "c", Cost: 2 * time.Hour}}
	if err := simulator.Plot(&out, "a title", results); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a title", "a&lt;b", ">c<", "<svg"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the plot has no %q", want)
		}
	}
	if strings.Contains(out.String(), "NaN") {
		t.Error("a point is nowhere")
	}
}
