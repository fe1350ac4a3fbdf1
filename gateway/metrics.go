package gateway

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// outcomeOK is the outcome label of a call that ended with an output, outcomeGone of one whose caller did not wait for
// the end; any other is the kind of its error.
const (
	outcomeOK             = "ok"
	outcomeGone wire.Kind = "left"
)

// metrics are what the gateway counts, and the registry they are read from.
type metrics struct {
	registry *prometheus.Registry
	handler  http.Handler

	calls     *prometheus.HistogramVec
	phases    *prometheus.HistogramVec
	waiting   *prometheus.GaugeVec
	published *prometheus.CounterVec
	replied   *prometheus.CounterVec
	errors    *prometheus.CounterVec

	byFunction sync.Map // queue.Function → *functionStats
}

// functionStats are one function's metrics, looked up once, and what the hot path keeps about it.
type functionStats struct {
	waiting atomic.Int64 // requests that wait here now
	hinted  atomic.Int64 // when demand was last hinted, in Unix nanoseconds
	depth   atomic.Int64 // the queue's length when it was last measured
	touched atomic.Bool  // called since then
	pace    pace

	function           queue.Function
	parent             *metrics
	inflight           prometheus.Gauge
	published          prometheus.Counter
	replied            prometheus.Counter
	ok                 prometheus.Observer
	queued, start, run prometheus.Observer
}

// newMetrics registers everything in the given registry, never in the global one.
func newMetrics(registry *prometheus.Registry, version string, functions func() float64) (*metrics, error) {
	labels := []string{"namespace", "app", "function"}
	// 0.25 ms to 72 min in steps of 2.5: warm calls and cold starts of large models both fall within.
	buckets := prometheus.ExponentialBuckets(0.00025, 2.5, 19)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "freshet_gateway_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "freshet_gateway_" + name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		registry: registry,
		calls: histogram("call_seconds", "Duration of calls as their callers see it, by how they ended.",
			"namespace", "app", "function", "outcome"),
		phases: histogram("call_phase_seconds", "What calls spent their time on: queue (a worker was there), start (of a worker), run.",
			"namespace", "app", "function", "phase"),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "freshet_gateway_calls_in_flight", Help: "Calls whose callers wait here now.",
		}, labels),
		published: counter("calls_published_total", "Calls put into the queue.", labels...),
		replied:   counter("calls_replied_total", "Calls whose result arrived.", labels...),
		errors:    counter("call_errors_total", "Calls that ended in an error or were refused, by kind.", "namespace", "app", "function", "kind"),
	}
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "freshet_build_info", Help: "Always 1; the labels say what runs.", ConstLabels: prometheus.Labels{"version": version, "component": "gateway"},
	}, func() float64 { return 1 })
	known := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "freshet_gateway_functions", Help: "Functions known from Nomad.",
	}, functions)
	for _, c := range []prometheus.Collector{
		m.calls, m.phases, m.waiting, m.published, m.replied, m.errors, info, known,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return m, nil
}

// of finds a function's metrics. Only functions that exist may be asked for: each has its own series.
func (m *metrics) of(f queue.Function) *functionStats {
	if stats, ok := m.byFunction.Load(f); ok {
		return stats.(*functionStats) //nolint:forcetypeassert // the map holds nothing else
	}
	n, a, name := f.Namespace, f.App, f.Name
	stats, _ := m.byFunction.LoadOrStore(f, &functionStats{
		function:  f,
		parent:    m,
		inflight:  m.waiting.WithLabelValues(n, a, name),
		published: m.published.WithLabelValues(n, a, name),
		replied:   m.replied.WithLabelValues(n, a, name),
		ok:        m.calls.WithLabelValues(n, a, name, outcomeOK),
		queued:    m.phases.WithLabelValues(n, a, name, "queue"),
		start:     m.phases.WithLabelValues(n, a, name, "start"),
		run:       m.phases.WithLabelValues(n, a, name, "run"),
	})
	return stats.(*functionStats) //nolint:forcetypeassert // the map holds nothing else
}

// enter counts a call in; leave counts it out.
func (s *functionStats) enter() {
	s.waiting.Add(1)
	s.inflight.Inc()
}

func (s *functionStats) leave() {
	s.waiting.Add(-1)
	s.inflight.Dec()
}

// done counts how a call ended.
func (s *functionStats) done(took time.Duration, result queue.Result) {
	s.replied.Inc()
	s.queued.Observe(result.Queued.Seconds())
	s.start.Observe(result.Started.Seconds())
	s.run.Observe(result.Run.Seconds())
	if result.Error != nil {
		s.failed(took, result.Error.Kind)
		return
	}
	s.ok.Observe(took.Seconds())
}

// failed counts a call that ended in an error or was refused.
func (s *functionStats) failed(took time.Duration, kind wire.Kind) {
	f := s.function
	s.parent.calls.WithLabelValues(f.Namespace, f.App, f.Name, string(kind)).Observe(took.Seconds())
	s.parent.errors.WithLabelValues(f.Namespace, f.App, f.Name, string(kind)).Inc()
}

// prune forgets the functions that are gone and that nobody waits for.
func (m *metrics) prune(exists func(queue.Function) bool) {
	m.byFunction.Range(func(key, value any) bool {
		f, stats := key.(queue.Function), value.(*functionStats) //nolint:forcetypeassert // the map holds nothing else
		if stats.waiting.Load() > 0 || exists(f) {
			return true
		}
		m.byFunction.Delete(f)
		labels := prometheus.Labels{"namespace": f.Namespace, "app": f.App, "function": f.Name}
		m.calls.DeletePartialMatch(labels)
		m.phases.DeletePartialMatch(labels)
		m.waiting.DeletePartialMatch(labels)
		m.published.DeletePartialMatch(labels)
		m.replied.DeletePartialMatch(labels)
		m.errors.DeletePartialMatch(labels)
		return true
	})
}
