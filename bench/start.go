package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver"
	"github.com/freshet-dev/freshet/internal/queue"
)

const startRounds = 12

// settleTime lets what a start leaves behind come to rest before the next one is measured.
const settleTime = 300 * time.Millisecond

// starts measures the driver alone, from Nomad's call of StartTask to a worker that takes calls: with a standby, with an empty sandbox
// made ahead, and with neither. The floor is what Nomad takes to start a task of a driver that does nothing.
func starts(ctx context.Context, s *system, _ *floors, r *report) error {
	floor := r.find("floor_nomad").P50
	for _, mode := range []struct {
		name  string
		ahead driver.AheadConfig
		ready func(standby, empty int) bool
	}{
		{"start_standby", driver.AheadConfig{MemoryMB: 1024}, func(standby, _ int) bool { return standby == 1 }},
		{"start_ahead", driver.AheadConfig{MemoryMB: 1024, Empty: true}, func(_, empty int) bool { return empty == 1 }},
		{"start_neither", driver.AheadConfig{}, func(int, int) bool { return true }},
	} {
		node, err := s.openNode(ctx, mode.name, mode.ahead)
		if err != nil {
			return err
		}
		starts, err := node.measure(ctx, mode.ready)
		if err := errors.Join(err, node.close(ctx)); err != nil {
			return fmt.Errorf("%s: %w", mode.name, err)
		}
		starts.report(mode.name, floor, r)
	}
	return nil
}

// startTimes are several starts, and the phases of each.
type startTimes struct {
	total  samples
	phases map[string]samples
}

func (t startTimes) report(name string, floor float64, r *report) {
	r.add(times(name, t.total, floor))
	for _, phase := range slices.Sorted(maps.Keys(t.phases)) {
		r.add(times("  "+name+"."+phase, t.phases[phase], 0))
	}
}

// node is a driver of its own beside the cluster's, with the cluster's queue.
type node struct {
	system *system
	driver *driver.Driver
	cancel context.CancelFunc
	nc     *nats.Conn
	dir    string
	parent string
	runsc  string
	code   string
}

func (s *system) openNode(ctx context.Context, name string, ahead driver.AheadConfig) (*node, error) {
	code, err := s.codeOf("bench", "thaw")
	if err != nil {
		return nil, err
	}
	n := &node{system: s, dir: filepath.Join(s.work, name), parent: "freshet-" + name, runsc: os.Getenv("FRESHET_RUNSC"), code: code}
	password := s.local.Passwords[queue.RoleGateway] // who may read events
	if n.nc, err = nats.Connect(s.local.NATS(), nats.UserInfo(string(queue.RoleGateway), password)); err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	ctx, n.cancel = context.WithCancel(ctx)
	n.driver = driver.New(ctx, zerolog.New(os.Stderr).Level(zerolog.WarnLevel))
	config := driver.Config{
		DataDir: n.dir, Runsc: n.runsc, Worker: filepath.Join(filepath.Dir(s.bin), "freshet-worker"), Platform: "systrap",
		Blobs: s.local.Blobs(), AllowHostPaths: true, CgroupParent: n.parent, Ahead: ahead,
		Snapshots: driver.SnapshotsConfig{FetchTimeout: "30s", SharedMaxAge: "1h", SharedMaxBytes: 1 << 30},
		NATS:      driver.NATSConfig{URL: s.local.NATS(), User: string(queue.RoleWorker), Password: s.local.Passwords[queue.RoleWorker]},
	}
	var raw []byte
	if err := base.MsgPackEncode(&raw, &config); err != nil {
		return nil, err
	}
	return n, n.driver.SetConfig(&base.Config{PluginConfig: raw})
}

// codeOf is the program of a function, as its job names it.
func (s *system) codeOf(app, function string) (string, error) {
	job, _, err := s.nomad.Jobs().Info(app+"."+function, nil)
	if err != nil {
		return "", fmt.Errorf("read job: %w", err)
	}
	code, ok := job.TaskGroups[0].Tasks[0].Config["code"].(string)
	if !ok {
		return "", fmt.Errorf("job %s.%s has no code", app, function)
	}
	return code, nil
}

func (n *node) close(ctx context.Context) error {
	err := n.driver.Close()
	n.cancel()
	n.nc.Close()
	clear := driver.Config{DataDir: n.dir, Runsc: n.runsc, Worker: n.runsc, CgroupParent: n.parent}
	return errors.Join(err, driver.Clear(ctx, clear, zerolog.Nop()))
}

// measure starts a worker again and again; the first start makes the snapshot and is not counted.
func (n *node) measure(ctx context.Context, ready func(standby, empty int) bool) (startTimes, error) {
	all := startTimes{phases: make(map[string]samples)}
	for round := range startRounds + 1 {
		if round > 0 {
			err := until(ctx, "something is made ahead", func() (bool, error) {
				standby, empty, err := n.driver.Ahead()
				return ready(standby, empty), err
			})
			if err != nil {
				return all, err
			}
			if err := pause(ctx, settleTime); err != nil {
				return all, err
			}
		}
		took, event, err := n.start(ctx)
		if err != nil {
			return all, err
		}
		if round == 0 {
			continue
		}
		if !event.Thawed {
			return all, errors.New("a worker started cold although there is a snapshot")
		}
		all.total = append(all.total, took)
		for name, ms := range event.Phases {
			all.phases[name] = append(all.phases[name], time.Duration(ms*float64(time.Millisecond)))
		}
	}
	return all, nil
}

// start starts a worker and ends it: from StartTask to the event that says it is ready.
func (n *node) start(ctx context.Context) (took time.Duration, event queue.Event, err error) {
	cfg, err := n.task()
	if err != nil {
		return 0, event, err
	}
	function := queue.Function{Namespace: "default", App: "bench", Name: "start"}
	events, err := n.nc.SubscribeSync(function.EventsSubject(cfg.AllocID))
	if err != nil {
		return 0, event, fmt.Errorf("subscribe to events: %w", err)
	}
	defer func() { _ = events.Unsubscribe() }() // the connection ends soon
	if err := n.nc.Flush(); err != nil {
		return 0, event, err
	}
	began := time.Now()
	if _, _, err := n.driver.StartTask(cfg); err != nil {
		return 0, event, err
	}
	for event.Kind != queue.EventReady {
		message, err := events.NextMsgWithContext(ctx)
		if err != nil {
			return 0, event, fmt.Errorf("wait for the worker: %w", err)
		}
		if event, err = queue.ParseEvent(message.Data); err != nil {
			return 0, event, err
		}
		if event.Kind == queue.EventStartFailed {
			return 0, event, errors.New(event.Reason)
		}
		took = time.Since(began)
	}
	return took, event, errors.Join(n.driver.StopTask(cfg.ID, patience, ""), n.driver.DestroyTask(cfg.ID, true))
}

// task is what Nomad would hand to the driver for the bench's thawing function, under a name that nobody calls.
func (n *node) task() (*drivers.TaskConfig, error) {
	alloc := ulid.Make().String()
	dir := filepath.Join(n.dir, "alloc", alloc)
	for _, sub := range []string{"alloc/logs", "guest/local", "guest/secrets"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make an allocation's directory: %w", err)
		}
	}
	cfg := &drivers.TaskConfig{
		ID: alloc + "/guest/1", AllocID: alloc, Name: "guest", JobName: "bench.start", JobID: "bench.start", Namespace: "default",
		AllocDir: dir, NodeName: "bench",
		Resources: &drivers.Resources{NomadResources: &structs.AllocatedTaskResources{
			Cpu: structs.AllocatedCpuResources{CpuShares: 100}, Memory: structs.AllocatedMemoryResources{MemoryMB: 256},
		}},
	}
	return cfg, cfg.EncodeConcreteDriverConfig(map[string]any{
		"code": n.code, "handler": map[string]any{"type": "go", "entry": "thaw"}, "snapshot": map[string]any{"enabled": true},
	})
}
