package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/api"
)

const (
	scalerRounds = 15
	peerRounds   = 8
)

// The peer's job: it needs no node, for only the scaling is measured.
const (
	peerJob   = "peer"
	peerGroup = "nothing"
)

// scaling measures the time from a call on an empty function to Nomad's acceptance of the new count, and beside it, on the same
// Nomad, what nomad-autoscaler takes from a metric's rise to the same: with an evaluation and a cool-down of a second, the
// shortest that it makes sense of, and a metric that costs it nothing to read.
func scaling(ctx context.Context, s *system, _ *floors, r *report) error {
	ours, err := s.acceptances(ctx)
	if err != nil {
		return err
	}
	peer, err := s.startPeer(ctx)
	if err != nil {
		return err
	}
	theirs, err := peer.acceptances(ctx, s)
	if err := errors.Join(err, peer.stop(ctx, s)); err != nil {
		return err
	}
	r.add(times("scale_accepted", ours, 0), times("peer_nomad_autoscaler", theirs, 0))
	return nil
}

// acceptances are from calls to the scalings that they made.
func (s *system) acceptances(ctx context.Context) (samples, error) {
	var list samples
	for range scalerRounds {
		if err := s.awaitZero(ctx, "bench", "thaw"); err != nil {
			return nil, err
		}
		called := time.Now()
		if _, _, err := s.call(ctx, "bench.thaw", input); err != nil {
			return nil, err
		}
		accepted, err := s.scaledAfter(ctx, "bench.thaw", "worker", called)
		if err != nil {
			return nil, err
		}
		list = append(list, accepted.Sub(called))
	}
	return list, nil
}

// scaledAfter is when a group's count was first raised after a time.
func (s *system) scaledAfter(ctx context.Context, job, group string, after time.Time) (time.Time, error) {
	var first time.Time
	err := until(ctx, job+" is scaled", func() (bool, error) {
		status, _, err := s.nomad.Jobs().ScaleStatus(job, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return false, fmt.Errorf("read scalings: %w", err)
		}
		for _, event := range status.TaskGroups[group].Events { // the newest first
			at := time.Unix(0, int64(event.Time)) // of this century
			if at.After(after) && event.Count != nil && *event.Count > event.PreviousCount {
				first = at
			}
		}
		return !first.IsZero(), nil
	})
	return first, err
}

// peer is a nomad-autoscaler and the metric that it reads.
type peer struct {
	cmd    *exec.Cmd
	log    bytes.Buffer
	server *http.Server
	depth  atomic.Int64
}

const peerConfig = `log_level = "warn"
plugin_dir = %q
nomad { address = %q }
http { bind_port = %d }
policy {
  default_cooldown            = "1s"
  default_evaluation_interval = "1s"
}
apm "prometheus" {
  driver = "prometheus"
  config = { address = "http://%s" }
}
strategy "target-value" { driver = "target-value" }
`

func (s *system) startPeer(ctx context.Context) (*peer, error) {
	path, err := exec.CommandContext(ctx, "tools/install", "nomad-autoscaler").Output()
	if err != nil {
		return nil, fmt.Errorf("build nomad-autoscaler: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	p := &peer{}
	p.server = &http.Server{Handler: http.HandlerFunc(p.answer), ReadHeaderTimeout: time.Second}
	go func() { _ = p.server.Serve(listener) }() // ends with the server, which stop closes
	port, err := freePort(ctx)
	if err != nil {
		return nil, errors.Join(err, p.server.Close())
	}
	plugins := filepath.Join(s.work, "peer-plugins")
	config := filepath.Join(s.work, "peer.hcl")
	text := fmt.Sprintf(peerConfig, plugins, s.local.Nomad(), port, listener.Addr())
	if err := errors.Join(os.MkdirAll(plugins, 0o700), os.WriteFile(config, []byte(text), 0o600), s.registerPeer(ctx)); err != nil {
		return nil, errors.Join(err, p.server.Close())
	}
	p.cmd = exec.Command(strings.TrimSpace(string(path)), "agent", "-config", config) // stop ends it
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, p.server.Close())
	}
	return p, nil
}

func freePort(ctx context.Context) (int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a port: %w", err)
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// registerPeer registers a job of a function's kind for the peer to scale.
func (s *system) registerPeer(ctx context.Context) error {
	block := func(value map[string]any) []any { return []any{value} }
	job := &api.Job{
		ID: new(peerJob), Name: new(peerJob), Type: new("service"), Datacenters: []string{"*"},
		TaskGroups: []*api.TaskGroup{{
			Name: new(peerGroup), Count: new(0), Update: &api.UpdateStrategy{MaxParallel: new(0)},
			Scaling: &api.ScalingPolicy{
				Enabled: new(true), Min: new(int64(0)), Max: new(int64(1)), Type: "horizontal",
				Policy: map[string]any{
					"cooldown": "1s", "evaluation_interval": "1s",
					"check": block(map[string]any{"depth": block(map[string]any{
						"source": "prometheus", "query": "depth", "query_window": "2s",
						"strategy": block(map[string]any{"target-value": block(map[string]any{"target": 1})}),
					})}),
				},
			},
			Tasks: []*api.Task{{
				Name: "nothing", Driver: "mock_driver", Config: map[string]any{"run_for": "1h"},
				LogConfig: &api.LogConfig{Disabled: new(true), MaxFiles: new(1), MaxFileSizeMB: new(1)},
			}},
		}},
	}
	if _, _, err := s.nomad.Jobs().Register(job, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("register the peer's job: %w", err)
	}
	return nil
}

// answer is a Prometheus that knows one metric, and its value of this moment.
func (p *peer) answer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	sample := []any{float64(time.Now().UnixMilli()) / 1000, strconv.FormatInt(p.depth.Load(), 10)}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"status": "success",
		"data":   map[string]any{"resultType": "matrix", "result": []any{map[string]any{"metric": map[string]string{}, "values": []any{sample}}}},
	}) // a client that left does not care
}

func (p *peer) acceptances(ctx context.Context, s *system) (samples, error) {
	var list samples
	for range peerRounds {
		raised := time.Now()
		p.depth.Store(1)
		accepted, err := s.scaledAfter(ctx, peerJob, peerGroup, raised)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, p.log.String())
		}
		list = append(list, accepted.Sub(raised))
		p.depth.Store(0)
		err = until(ctx, "the peer goes to zero", func() (bool, error) {
			job, _, err := s.nomad.Jobs().Info(peerJob, (&api.QueryOptions{}).WithContext(ctx))
			return err == nil && *job.TaskGroups[0].Count == 0, err
		})
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, p.log.String())
		}
		select { // its cool-down, and a part of its next second by chance
		case <-time.After(time.Second + time.Duration(time.Now().UnixNano()%int64(time.Second))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return list, nil
}

func (p *peer) stop(ctx context.Context, s *system) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = p.cmd.Wait()
	_, _, err := s.nomad.Jobs().Deregister(peerJob, true, (&api.WriteOptions{}).WithContext(ctx))
	return errors.Join(err, p.server.Close())
}
