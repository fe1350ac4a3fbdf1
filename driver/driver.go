package driver

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	cstructs "github.com/hashicorp/nomad/client/structs"
	"github.com/hashicorp/nomad/drivers/shared/eventer"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Driver is Nomad's face: it translates, and keeps the tasks.
type Driver struct {
	log     zerolog.Logger
	eventer *eventer.Eventer
	// ctx ends with the plugin; workers outlive it.
	ctx     context.Context
	waiting sync.WaitGroup

	tasks taskTable

	mu      sync.Mutex
	starter *starter // nil until SetConfig
	given   Config   // what SetConfig was given
}

var _ drivers.DriverPlugin = (*Driver)(nil)

// New makes the driver. Its context is the plugin's life.
func New(ctx context.Context, log zerolog.Logger) *Driver {
	return &Driver{
		log: log, ctx: ctx, tasks: taskTable{tasks: make(map[string]*task)},
		eventer: eventer.NewEventer(ctx, hclog.NewNullLogger()), // it logs nothing but its own end
	}
}

// PluginInfo implements Nomad's BasePlugin.
func (d *Driver) PluginInfo() (*base.PluginInfoResponse, error) { return pluginInfo(), nil }

// ConfigSchema implements Nomad's BasePlugin.
func (d *Driver) ConfigSchema() (*hclspec.Spec, error) { return configSpec(), nil }

// TaskConfigSchema implements Nomad's DriverPlugin.
func (d *Driver) TaskConfigSchema() (*hclspec.Spec, error) { return taskConfigSpec(), nil }

// Capabilities implements Nomad's DriverPlugin.
func (d *Driver) Capabilities() (*drivers.Capabilities, error) { return capabilities(), nil }

// SetConfig takes the plugin's block of the agent's configuration. Nomad first calls it with none, to see whether it can.
func (d *Driver) SetConfig(cfg *base.Config) error {
	if len(cfg.PluginConfig) == 0 {
		return nil
	}
	var config Config
	if err := base.MsgPackDecode(cfg.PluginConfig, &config); err != nil {
		return fmt.Errorf("decode plugin config: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.starter != nil && reflect.DeepEqual(config, d.given) {
		return nil // an agent that was restarted says to its plugin what the former one said
	}
	if d.starter != nil {
		if err := d.starter.close(); err != nil {
			return err
		}
		d.starter = nil
	}
	starter, err := newStarter(d.ctx, config, d.tasks.holds, d.log)
	if err != nil {
		return err
	}
	d.starter, d.given = starter, config
	return nil
}

// Close lets go of what the node lends; tasks run on.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.starter == nil {
		return nil
	}
	return d.starter.close()
}

func (d *Driver) getStarter() (*starter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.starter == nil {
		return nil, errors.New(`the driver has no configuration: add plugin "freshet-driver" { config { … } } to the Nomad agent's`)
	}
	return d.starter, nil
}

// Fingerprint tells Nomad what the node offers, now and every fingerprintEvery.
func (d *Driver) Fingerprint(ctx context.Context) (<-chan *drivers.Fingerprint, error) {
	prints := make(chan *drivers.Fingerprint)
	d.waiting.Go(func() {
		defer close(prints)
		ticker := time.NewTicker(fingerprintEvery)
		defer ticker.Stop()
		for {
			select {
			case prints <- d.fingerprint():
			case <-ctx.Done():
				return
			case <-d.ctx.Done():
				return
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			case <-d.ctx.Done():
				return
			}
		}
	})
	return prints, nil
}

// StartTask starts a worker and returns without waiting for it: that it is ready is told over NATS.
func (d *Driver) StartTask(cfg *drivers.TaskConfig) (*drivers.TaskHandle, *drivers.DriverNetwork, error) {
	starter, err := d.getStarter()
	if err != nil {
		return nil, nil, err
	}
	if _, err := d.tasks.get(cfg.ID); err == nil {
		return nil, nil, fmt.Errorf("task %s runs already", cfg.ID)
	}
	started, net, err := starter.start(d.ctx, cfg, func(message string) { d.emit(cfg, message) })
	if err != nil {
		return nil, nil, err
	}
	handle := drivers.NewTaskHandle(handleVersion)
	handle.Config, handle.State = cfg, drivers.TaskStateRunning
	if err := handle.SetDriverState(&started.state); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("keep task state: %w", err), started.signalSupervisor(unix.SIGKILL))
	}
	d.put(started)
	return handle, net, nil
}

// RecoverTask finds a task that a former plugin started. One whose worker ended meanwhile is found too, and its end reported.
func (d *Driver) RecoverTask(handle *drivers.TaskHandle) error {
	if handle == nil || handle.Config == nil {
		return errors.New("recover task: there is no handle")
	}
	if _, err := d.tasks.get(handle.Config.ID); err == nil {
		return nil
	}
	starter, err := d.getStarter()
	if err != nil {
		return err
	}
	var state taskState
	if err := handle.GetDriverState(&state); err != nil {
		return fmt.Errorf("recover task %s: %w", handle.Config.ID, err)
	}
	recovered, err := recoverTask(handle.Config, state, starter)
	if err != nil {
		return err
	}
	d.put(recovered)
	return nil
}

func (d *Driver) put(t *task) {
	d.tasks.put(t)
	d.waiting.Go(func() { t.wait(d.ctx, d.emit) })
}

func (d *Driver) emit(cfg *drivers.TaskConfig, message string) {
	event := &drivers.TaskEvent{
		TaskID: cfg.ID, TaskName: cfg.Name, AllocID: cfg.AllocID, Timestamp: time.Now(), Message: message,
	}
	if err := d.eventer.EmitEvent(event); err != nil {
		d.log.Debug().Err(err).Msg("emit task event")
	}
}

// WaitTask tells once how a task ended.
func (d *Driver) WaitTask(ctx context.Context, id string) (<-chan *drivers.ExitResult, error) {
	t, err := d.tasks.get(id)
	if err != nil {
		return nil, err
	}
	results := make(chan *drivers.ExitResult)
	d.waiting.Go(func() {
		defer close(results)
		select {
		case <-t.ended:
		case <-ctx.Done():
			return
		case <-d.ctx.Done():
			return
		}
		select {
		case results <- t.exit():
		case <-ctx.Done():
		case <-d.ctx.Done():
		}
	})
	return results, nil
}

// StopTask asks the task to end, by the signal or as docker does by SIGTERM, and kills it after the timeout. A worker finishes its
// calls first.
func (d *Driver) StopTask(id string, timeout time.Duration, signal string) error {
	t, err := d.tasks.get(id)
	if err != nil {
		return err
	}
	number := unix.SIGTERM
	if signal != "" {
		if number, err = signalNumber(signal); err != nil {
			return err
		}
	}
	return t.stop(d.ctx, timeout, number)
}

func signalNumber(name string) (unix.Signal, error) {
	number := unix.SignalNum(strings.ToUpper(name))
	if number == 0 {
		return 0, fmt.Errorf("signal task: %q is no signal: use a name such as SIGTERM", name)
	}
	return number, nil
}

// DestroyTask removes what the task left on the node.
func (d *Driver) DestroyTask(id string, force bool) error {
	t, err := d.tasks.get(id)
	if err != nil {
		return err
	}
	if t.running() {
		if !force {
			return fmt.Errorf("destroy task %s: it runs; stop it first", id)
		}
		if err := t.kill(d.ctx); err != nil {
			return err
		}
		select {
		case <-t.ended:
		case <-d.ctx.Done():
			return fmt.Errorf("destroy task %s: the plugin ends", id)
		}
	}
	d.tasks.remove(id)
	return t.remove(d.ctx)
}

// InspectTask implements Nomad's DriverPlugin.
func (d *Driver) InspectTask(id string) (*drivers.TaskStatus, error) {
	t, err := d.tasks.get(id)
	if err != nil {
		return nil, err
	}
	return t.status(), nil
}

// TaskStats sends what the task uses, every interval.
func (d *Driver) TaskStats(ctx context.Context, id string, interval time.Duration) (<-chan *cstructs.TaskResourceUsage, error) {
	t, err := d.tasks.get(id)
	if err != nil {
		return nil, err
	}
	usages := make(chan *cstructs.TaskResourceUsage)
	d.waiting.Go(func() {
		defer close(usages)
		t.sample(ctx, interval, usages)
	})
	return usages, nil
}

// TaskEvents implements Nomad's DriverPlugin.
func (d *Driver) TaskEvents(ctx context.Context) (<-chan *drivers.TaskEvent, error) {
	return d.eventer.TaskEvents(ctx)
}

// SignalTask sends a signal to the guest; SIGTERM and SIGINT drain a worker.
func (d *Driver) SignalTask(id, signal string) error {
	t, err := d.tasks.get(id)
	if err != nil {
		return err
	}
	number, err := signalNumber(signal)
	if err != nil || !t.running() {
		return err
	}
	if err := t.listening(d.ctx); err != nil {
		return fmt.Errorf("signal: %w", err)
	}
	return t.signal(d.ctx, number)
}

// Ahead says how many supervisors are ready before there is a task for them: thawed ones, and such with an empty sandbox.
func (d *Driver) Ahead() (standby, empty int, err error) {
	starter, err := d.getStarter()
	if err != nil {
		return 0, 0, err
	}
	standby, empty = starter.ahead.Counts()
	return standby, empty, nil
}
