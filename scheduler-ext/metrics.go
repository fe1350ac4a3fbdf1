package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/freshet-dev/freshet/internal/queue"
)

// noDevice is the label of workers that need no device.
const noDevice = "none"

type metrics struct {
	reactions *prometheus.HistogramVec
	refusals  prometheus.Counter
	acting    prometheus.Gauge
	wrong     *prometheus.GaugeVec
	pending   *capacity
}

// capacity is the gauge of the workers without a place, by device. It is set as a whole: whoever reads it in between would add nodes, or
// take some away, by half of it.
type capacity struct {
	desc *prometheus.Desc
	mu   sync.Mutex
	by   map[string]int
}

// set replaces the values; none says nothing.
func (c *capacity) set(by map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by = by
}

// Describe is prometheus.Collector's.
func (c *capacity) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

// Collect is prometheus.Collector's.
func (c *capacity) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	by := c.by
	c.mu.Unlock()
	for device, count := range by {
		to <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(count), device)
	}
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	if registry == nil {
		return nil, errors.New("make autoscaler: no metrics registry")
	}
	m := &metrics{
		reactions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "freshet_autoscaler_reaction_seconds",
			Help:    "From a hint or sweep to Nomad's acceptance of the new count.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}, []string{"direction"}),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_autoscaler_refusals_total", Help: "Requests that Nomad refused or failed.",
		}),
		acting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "freshet_autoscaler_acting", Help: "1 for the instance that has the lease.",
		}),
		wrong: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "freshet_autoscaler_policy_wrong", Help: "1 for functions whose scaling policy is wrong, so that an earlier one is in force.",
		}, []string{"namespace", "app", "function"}),
		pending: &capacity{desc: prometheus.NewDesc("freshet_pending_workers",
			"Workers that are wanted and for which Nomad has no place, times the devices of each, by the device that they need.", []string{"device"}, nil)},
	}
	for _, c := range []prometheus.Collector{m.reactions, m.refusals, m.acting, m.wrong, m.pending} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) reaction(up bool, took time.Duration) {
	direction := "down"
	if up {
		direction = "up"
	}
	m.reactions.WithLabelValues(direction).Observe(took.Seconds())
}

func (m *metrics) refused() { m.refusals.Inc() }

func (m *metrics) acts(acts bool) {
	m.acting.Set(0)
	if acts {
		m.acting.Set(1)
	}
}

func (m *metrics) policy(function queue.Function, wrong bool) {
	if wrong {
		m.wrong.WithLabelValues(function.Namespace, function.App, function.Name).Set(1)
		return
	}
	m.wrong.DeleteLabelValues(function.Namespace, function.App, function.Name)
}

// reportCapacity counts the workers without a place, for those who add nodes. Whoever asks gets what is so now: by a count of a moment
// ago, workers that found a place meanwhile would be there twice. An instance that does not know yet what had no place before says nothing.
func (a *scaler) reportCapacity() {
	if _, acts := a.leader.Lease(); !acts || !a.knows {
		a.metrics.pending.set(nil)
		return
	}
	by := map[string]int{noDevice: 0} // never absent: a missing metric is no zero to those who read it
	for function, s := range a.states {
		entry, known := a.functions.Entry(function)
		if !known {
			continue
		}
		unplaced := s.unplaced
		if s.later != nil { // news for when Nomad has answered
			unplaced = s.later.Unplaced
		}
		for _, group := range entry.Groups {
			device, each := group.Device, max(group.Devices, 1)
			if device == "" {
				device = noDevice
			}
			by[device] += unplaced[group.Name] * each
		}
	}
	a.metrics.pending.set(by)
}

// count has the metrics brought up to date, unless that takes too long.
func (a *Autoscaler) count(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, whyWait)
	defer cancel()
	done := make(chan struct{})
	select {
	case a.scaler.counted <- done:
		<-done
	case <-ctx.Done():
	}
}

// Handler serves /healthz, /metrics and /v1/scaling/{app}/{function}.
func (a *Autoscaler) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n")) // a client that left does not care
	})
	metrics := promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		a.count(r.Context())
		metrics.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /v1/scaling/{app}/{function}", a.handleWhy)
	return mux
}
