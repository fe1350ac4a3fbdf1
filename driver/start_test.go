package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// script writes an executable shell script.
func script(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// nobody claims a task.
func nobody(string) bool { return false }

// newTestStarter starts workers that only wait to be stopped.
func newTestStarter(t *testing.T, change func(*Config)) (*starter, string) {
	t.Helper()
	dir := t.TempDir()
	config := Config{
		DataDir: filepath.Join(dir, "data"), Runsc: script(t, dir, "runsc", ":"),
		Worker: script(t, dir, "worker", "exec tail -f /dev/null"), AllowHostPaths: true,
	}
	if change != nil {
		change(&config)
	}
	s, err := newStarter(t.Context(), config, nobody, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s, script(t, dir, "program", ":")
}

// taskOf is a task as Nomad hands it over.
func taskOf(t *testing.T, config map[string]any) *drivers.TaskConfig {
	t.Helper()
	cfg := &drivers.TaskConfig{
		ID: "alloc-1/guest/0001", AllocID: "alloc-1", Name: "guest", JobName: "app.f", Namespace: "default", AllocDir: t.TempDir(),
		Env: map[string]string{"NOMAD_ALLOC_ID": "alloc-1", "KEEP": "this"},
	}
	if err := cfg.EncodeConcreteDriverConfig(config); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func begin(t *testing.T, s *starter, cfg *drivers.TaskConfig) (*task, error) {
	t.Helper()
	started, _, err := s.start(t.Context(), cfg, func(string) {})
	return started, err
}

func goHandler(code string) map[string]any {
	return map[string]any{"code": code, "handler": map[string]any{"type": "go", "entry": "f"}, "snapshot": map[string]any{"enabled": true}}
}

func stop(t *testing.T, started *task) {
	t.Helper()
	if err := started.signalSupervisor(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := started.process.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := started.remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTaskThatIsStartedTwiceRunsOnce: Nomad asks a new plugin again when the first one died before it could answer.
func TestTaskThatIsStartedTwiceRunsOnce(t *testing.T) {
	s, program := newTestStarter(t, nil)
	cfg := taskOf(t, goHandler(program))
	first, err := begin(t, s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, first)
	second, err := begin(t, s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if second.process.PID != first.process.PID {
		t.Errorf("two workers, %d and %d, run one task", first.process.PID, second.process.PID)
	}
}

func TestWorkerIsToldWhatItNeeds(t *testing.T) {
	s, program := newTestStarter(t, nil)
	started, err := begin(t, s, taskOf(t, goHandler(program)))
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, started)
	work, err := handoff.ReadTask(filepath.Join(started.state.StateDir, handoff.TaskFile))
	if err != nil {
		t.Fatal(err)
	}
	if work.Identity.App != "app" || work.Identity.Function != "f" || work.Identity.Alloc != "alloc-1" || work.Snapshots == nil {
		t.Errorf("got %+v", work)
	}
	if _, ok := work.Program.Env["NOMAD_ALLOC_ID"]; ok || work.Program.Env["KEEP"] != "this" || work.Program.Env["FRESHET_GUEST"] != "1" {
		t.Errorf("the guest's environment is %v", work.Program.Env)
	}
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(started.state.StateDir, handoff.TaskFile), &stat); err != nil || stat.Mode&0o077 != 0 {
		t.Errorf("the file with the queue's password has mode %o, %v", stat.Mode, err)
	}
}

func TestWrongTasksAreRefusedByField(t *testing.T) {
	for says, test := range map[string]struct {
		change func(map[string]any)
		node   func(*Config)
	}{
		"concurency":   {func(c map[string]any) { c["concurency"] = 3 }, nil},
		"concurrency":  {func(c map[string]any) { c["concurrency"] = 5000 }, nil},
		"handler.type": {func(c map[string]any) { c["handler"] = map[string]any{"type": "modal", "entry": "a:b"} }, nil},
		"image":        {func(c map[string]any) { c["handler"], c["code"] = nil, nil }, nil},
		"network_mode": {func(c map[string]any) { c["network_mode"] = "host" }, nil},
		"ports[0]":     {func(c map[string]any) { c["ports"] = []string{"http"} }, nil},
		"mount[0]":     {func(c map[string]any) { c["mount"] = []any{map[string]any{"source": "../../x", "target": "/x"}} }, nil},
		"no paths of": {func(c map[string]any) {
			c["mount"] = []any{map[string]any{"source": "/etc", "target": "/x", "readonly": true}}
		}, func(c *Config) { c.AllowHostPaths = false }},
		"code":         {func(map[string]any) {}, func(c *Config) { c.AllowHostPaths = false }},
		"no such file": {func(c map[string]any) { c["code"] = "/no/such/program" }, nil},
	} {
		s, program := newTestStarter(t, test.node)
		config := goHandler(program)
		test.change(config)
		if _, err := begin(t, s, taskOf(t, config)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v", says, err)
		}
	}
}

func TestPluginConfigIsChecked(t *testing.T) {
	if _, err := newStarter(t.Context(), Config{DataDir: "relative"}, nobody, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "data_dir") {
		t.Errorf("got %v", err)
	}
}
