package simulator

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

// Result is what a policy made of a trace.
type Result struct {
	Policy, Family string
	Calls          int
	// Cost is the time that workers existed, from their start's request to their end.
	Cost time.Duration
	// Mean, P50 and P99 are of the calls' waiting for a free slot.
	Mean, P50, P99 time.Duration
	// Changes is how often a count was changed.
	Changes int
}

// Run simulates all functions of a trace under a policy, until a while after its length.
func Run(trace Trace, length time.Duration, model Model, p Policy) Result {
	worlds := make([]*world, len(trace))
	var running sync.WaitGroup
	todo := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for i := range todo {
				worlds[i] = &world{model: model, scaler: p.New(), calls: trace[i]}
				worlds[i].run(length)
			}
		})
	}
	for i := range trace {
		todo <- i
	}
	close(todo)
	running.Wait()
	result := Result{Policy: p.Name, Family: p.Family}
	waits := make([]time.Duration, 0, trace.Calls())
	for _, w := range worlds {
		waits = append(waits, w.waits...)
		result.Cost += w.cost
		result.Changes += w.changes
	}
	slices.Sort(waits)
	result.Calls = len(waits)
	for _, wait := range waits {
		result.Mean += wait
	}
	if len(waits) > 0 {
		result.Mean /= time.Duration(len(waits))
		result.P50, result.P99 = waits[len(waits)/2], waits[len(waits)*99/100]
	}
	return result
}

// Verdict is how the best of our variants stands to one of a reference's results.
type Verdict struct {
	Reference Result
	// Ours is the variant that compares best: its cost and its waits are no higher, and one of them is lower. Better says that
	// there is one.
	Ours   Result
	Better bool
}

// Compare looks, for each result that is not ours, for one of ours that beats it: less wait at no more cost, or less cost at no
// more wait. Of several it takes the one with the least wait.
func Compare(results []Result) []Verdict {
	var verdicts []Verdict
	for _, reference := range results {
		if reference.Family == family {
			continue
		}
		v := Verdict{Reference: reference}
		for _, ours := range results {
			if ours.Family == family && beats(ours, reference) && (!v.Better || ours.P99 < v.Ours.P99) {
				v.Ours, v.Better = ours, true
			}
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// family is that of our own policies.
const family = "freshet"

func beats(ours, reference Result) bool {
	noWorse := ours.Cost <= reference.Cost && ours.P99 <= reference.P99 && ours.P50 <= reference.P50 && ours.Mean <= reference.Mean
	return noWorse && (ours.Cost < reference.Cost || ours.Mean < reference.Mean)
}
