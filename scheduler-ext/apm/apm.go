// Package apm answers nomad-autoscaler's queries: how many workers have no place, and how many nodes there should therefore be. So
// existing scaling of clusters adds and removes nodes by what functions need.
package apm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad-autoscaler/plugins/base"
	"github.com/hashicorp/nomad-autoscaler/sdk"
	"github.com/hashicorp/nomad/api"
)

// Name is the plugin's, and that of its program.
const Name = "freshet-apm"

// patience bounds the questions of one query.
const patience = 10 * time.Second

// defaultAutoscaler is where `freshet autoscaler` listens when it is not told otherwise.
const defaultAutoscaler = "http://127.0.0.1:8601"

// Plugin is an APM plugin of nomad-autoscaler's. New makes it; SetConfig, which nomad-autoscaler calls, says whom it asks.
type Plugin struct {
	ctx         context.Context // nomad-autoscaler's interface has none
	log         hclog.Logger
	autoscalers []string
	nomad       *api.Client
}

// New makes a plugin that answers until the context ends.
func New(ctx context.Context, log hclog.Logger) *Plugin { return &Plugin{ctx: ctx, log: log} }

// PluginInfo is who it is.
func (p *Plugin) PluginInfo() (*base.PluginInfo, error) {
	return &base.PluginInfo{Name: Name, PluginType: sdk.PluginTypeAPM}, nil
}

// SetConfig takes the addresses of all autoscalers, separated by commas, as "autoscalers"; and Nomad's address and what belongs to
// it, which nomad-autoscaler hands on from its own configuration.
func (p *Plugin) SetConfig(config map[string]string) error {
	p.autoscalers = nil
	for address := range strings.SplitSeq(config["autoscalers"], ",") {
		if address = strings.TrimRight(strings.TrimSpace(address), "/"); address != "" {
			p.autoscalers = append(p.autoscalers, address)
		}
	}
	if p.autoscalers == nil {
		p.autoscalers = []string{defaultAutoscaler}
	}
	nomad := &api.Config{
		Address: config["nomad_address"], Region: config["nomad_region"], SecretID: config["nomad_token"],
		TLSConfig: &api.TLSConfig{
			CACert: config["nomad_ca-cert"], CAPath: config["nomad_ca-path"], ClientCert: config["nomad_client-cert"],
			ClientKey: config["nomad_client-key"], TLSServerName: config["nomad_tls-server-name"], Insecure: config["nomad_skip-verify"] == "true",
		},
	}
	var err error
	if p.nomad, err = api.NewClient(nomad); err != nil {
		return fmt.Errorf("set up nomad client: %w", err)
	}
	return nil
}

// Query answers one query with the value of this moment; the range does not matter. A failure is an error and never a zero: nodes
// go only when it is known that nobody needs them.
func (p *Plugin) Query(text string, _ sdk.TimeRange) (sdk.TimestampedMetrics, error) {
	q, err := parse(text)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := p.answer(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("answer %q: %w", text, err)
	}
	p.log.Debug("answered", "query", text, "value", value)
	return sdk.TimestampedMetrics{{Timestamp: time.Now(), Value: float64(value)}}, nil
}

// QueryMultiple is Query for those that want lists.
func (p *Plugin) QueryMultiple(text string, span sdk.TimeRange) ([]sdk.TimestampedMetrics, error) {
	metrics, err := p.Query(text, span)
	if err != nil {
		return nil, err
	}
	return []sdk.TimestampedMetrics{metrics}, nil
}

func (p *Plugin) answer(ctx context.Context, q query) (int, error) {
	if p.nomad == nil {
		return 0, errors.New("the plugin is not configured yet")
	}
	pending, err := p.pending(ctx, q.kind)
	if err != nil || q.class == "" {
		return pending, err
	}
	used, err := p.used(ctx, q.class)
	if err != nil {
		return 0, err
	}
	return used + (pending+q.each-1)/q.each, nil
}
