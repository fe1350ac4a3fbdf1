// Command nodepool is a target plugin for nomad-autoscaler whose nodes a test adds and removes: it asks the test over HTTP.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad-autoscaler/plugins"
	"github.com/hashicorp/nomad-autoscaler/plugins/base"
	"github.com/hashicorp/nomad-autoscaler/sdk"
)

func main() {
	plugins.Serve(func(hclog.Logger) any { return &target{} })
}

// target is the test, at an address.
type target struct{ address string }

// size is the number of nodes, as the test tells it and is told.
type size struct {
	Nodes int64 `json:"nodes"`
}

func (t *target) PluginInfo() (*base.PluginInfo, error) {
	return &base.PluginInfo{Name: "nodepool", PluginType: sdk.PluginTypeTarget}, nil
}

func (t *target) SetConfig(config map[string]string) error {
	t.address = config["address"]
	return nil
}

// Status is how many nodes there are.
func (t *target) Status(map[string]string) (*sdk.TargetStatus, error) {
	response, err := http.Get(t.address)
	if err != nil {
		return nil, fmt.Errorf("ask for nodes: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	var now size
	if err := json.NewDecoder(response.Body).Decode(&now); err != nil {
		return nil, fmt.Errorf("read how many nodes there are: %w", err)
	}
	return &sdk.TargetStatus{Ready: true, Count: now.Nodes}, nil
}

// Scale has nodes added or removed.
func (t *target) Scale(action sdk.ScalingAction, _ map[string]string) error {
	body, err := json.Marshal(size{action.Count})
	if err != nil {
		return fmt.Errorf("encode number of nodes: %w", err)
	}
	response, err := http.Post(t.address, "application/json", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("have nodes added or removed: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	said, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("have nodes added or removed: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("have nodes added or removed: %s: %s", response.Status, said)
	}
	return nil
}
