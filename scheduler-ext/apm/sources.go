package apm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/nomad/api"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// What an autoscaler says of itself, and of what has no place.
const (
	metricActing  = "freshet_autoscaler_acting"
	metricPending = "freshet_pending_workers"
	labelDevice   = "device"
)

// pending asks the autoscaler that acts; the others know nothing.
func (p *Plugin) pending(ctx context.Context, kind string) (int, error) {
	var failures []error
	for _, address := range p.autoscalers {
		metrics, err := scrape(ctx, address)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		if acting := metrics[metricActing].GetMetric(); len(acting) != 1 || acting[0].GetGauge().GetValue() != 1 {
			continue
		}
		if len(metrics[metricPending].GetMetric()) == 0 {
			failures = append(failures, fmt.Errorf("the autoscaler at %s took over and does not know yet", address))
			continue
		}
		sum := 0.0
		for _, metric := range metrics[metricPending].GetMetric() {
			if kind == "" || kindOf(metric) == kind {
				sum += metric.GetGauge().GetValue()
			}
		}
		return int(sum), nil
	}
	acting := fmt.Errorf("none of the autoscalers %s acts at the moment", strings.Join(p.autoscalers, ", "))
	return 0, errors.Join(append([]error{acting}, failures...)...)
}

func kindOf(metric *dto.Metric) string {
	for _, label := range metric.GetLabel() {
		if label.GetName() == labelDevice {
			return label.GetValue()
		}
	}
	return ""
}

func scrape(ctx context.Context, address string) (map[string]*dto.MetricFamily, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("ask autoscaler: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask autoscaler: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask autoscaler at %s: it answers %s", address, response.Status)
	}
	var parser expfmt.TextParser
	metrics, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read metrics of %s: %w", address, err)
	}
	return metrics, nil
}

// used counts the nodes of a class that run something, other than what runs on every node.
func (p *Plugin) used(ctx context.Context, class string) (int, error) {
	nodes, _, err := p.nomad.Nodes().List((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return 0, fmt.Errorf("list nodes: %w", err)
	}
	ofClass := make(map[string]bool)
	for _, node := range nodes {
		if node.NodeClass == class && node.Status != api.NodeStatusDown {
			ofClass[node.ID] = true
		}
	}
	live := `ClientStatus == "running" or ClientStatus == "pending"`
	allocs, _, err := p.nomad.Allocations().List((&api.QueryOptions{Namespace: api.AllNamespacesNamespace, Filter: live}).WithContext(ctx))
	if err != nil {
		return 0, fmt.Errorf("list allocations: %w", err)
	}
	used := make(map[string]bool)
	for _, alloc := range allocs {
		if ofClass[alloc.NodeID] && alloc.JobType != api.JobTypeSystem && alloc.JobType != api.JobTypeSysbatch {
			used[alloc.NodeID] = true
		}
	}
	return len(used), nil
}
