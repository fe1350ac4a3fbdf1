package autoscaler

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reactions *prometheus.HistogramVec
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	if registry == nil {
		return nil, errors.New("make autoscaler: no metrics registry")
	}
	m := &metrics{reactions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "freshet_autoscaler_reaction_seconds",
		Help:    "From a hint or sweep to Nomad's acceptance of the new count.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
	}, []string{"direction"})}
	if err := registry.Register(m.reactions); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
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
