package spec

import (
	"fmt"
	"slices"
	"time"
)

// Limits on how calls reach a function.
const (
	// MaxBatchSize and MaxBatchWait bound a batch of calls that run together.
	MaxBatchSize = 1000
	MaxBatchWait = Duration(10 * time.Minute)
	// MaxSlots bounds the calls that a worker holds at once: its batches times their size.
	MaxSlots = 10_000
	// MaxRate is the highest rate of calls that a spec may name, a second.
	MaxRate = 1e6
	// MaxMethods bounds the methods of a class.
	MaxMethods = 256
)

// Batching collects the calls of a function: its guest gets up to MaxSize of them at once, and answers each. Every call keeps its own
// attempts, deadline, cancellation and result. A worker runs as many batches at once as its concurrency says.
type Batching struct {
	// MaxSize is the most calls of a batch, 1 to 1000; 0 for no batching.
	MaxSize int `json:"max_size,omitempty"`
	// Wait is how long the first call of a batch waits for others, up to 10m. Default 0: a batch is what waits already.
	Wait Duration `json:"wait,omitempty"`
}

// Rate bounds how often a function is called, by each gateway.
type Rate struct {
	// PerSecond is how many calls a second are taken on average, up to 1,000,000; 0 for any number.
	PerSecond float64 `json:"per_second,omitempty"`
	// Burst is how many are taken at once after a pause. Default: those of a second.
	Burst int `json:"burst,omitempty"`
}

// Slots is the number of calls that a worker holds at once.
func (c Config) Slots() int { return c.Concurrency * max(1, c.Batching.MaxSize) }

func checkBatching(c *checker, cfg Config) {
	b := cfg.Batching
	if b == (Batching{}) {
		return
	}
	c.between("batching.max_size", b.MaxSize, 1, MaxBatchSize)
	c.duration("batching.wait", b.Wait, 0, MaxBatchWait)
	if slots := cfg.Slots(); slots > MaxSlots {
		c.fail("batching.max_size", b.MaxSize, "use at most %d with a concurrency of %d: a worker holds at most %d calls", MaxSlots/cfg.Concurrency, cfg.Concurrency, MaxSlots)
	}
	if len(cfg.Methods) > 0 {
		c.fail("batching", fmt.Sprintf("max_size %d", b.MaxSize), "remove it, or the methods: a class gets each call alone")
	}
	if h := cfg.Handler; h == nil || h.Type != HandlerGo {
		c.fail("batching", fmt.Sprintf("max_size %d", b.MaxSize), "remove it: only a go handler takes batches; commands, servers and Python get each call alone")
	}
}

func checkRate(c *checker, r Rate) {
	if !(r.PerSecond >= 0 && r.PerSecond <= MaxRate) { // written so that NaN fails too
		c.fail("rate.per_second", r.PerSecond, "use more than 0 and at most %d calls a second, or 0 for any number", int(MaxRate))
	}
	c.between("rate.burst", r.Burst, 0, MaxRate)
	if r.Burst > 0 && r.PerSecond == 0 {
		c.fail("rate.burst", r.Burst, "set rate.per_second too, or remove it")
	}
}

func checkMethods(c *checker, methods []string) {
	if len(methods) > MaxMethods {
		c.fail("methods", len(methods), "use at most %d", MaxMethods)
	}
	for i, method := range methods {
		field := fmt.Sprintf("methods[%d]", i)
		c.name(field, method)
		if slices.Contains(methods[:i], method) {
			c.fail(field, method, "name each method once")
		}
	}
}
