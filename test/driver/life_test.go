package driver

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver"
	"github.com/freshet-dev/freshet/internal/eventually"
)

// notFound tells whether an error that came through the plugin protocol, as a text, is the one that Nomad's client looks for.
func notFound(err error) bool {
	return err != nil && strings.Contains(err.Error(), drivers.ErrTaskNotFound.Error())
}

// syncBuffer is one that may be read while it is written.
type syncBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *syncBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(data)
}

// Close implements io.Closer.
func (b *syncBuffer) Close() error { return nil }

func (b *syncBuffer) has(t *testing.T, text string) {
	t.Helper()
	eventually.True(t, "it says "+text, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return strings.Contains(b.data.String(), text)
	})
}

// TestFingerprint is what Nomad schedules by.
func TestFingerprint(t *testing.T) {
	n := newNode(t, func(c *driver.Config) { c.Ahead.MemoryMB = 512 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	prints, err := n.Fingerprint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	print := <-prints
	if print.Health != drivers.HealthStateHealthy || print.Err != nil {
		t.Errorf("health %q: %s (%v)", print.Health, print.HealthDescription, print.Err)
	}
	got := make(map[string]string)
	for name, value := range print.Attributes {
		got[name] = value.GoString()
	}
	for name, want := range map[string]string{
		"driver.freshet": "true", "driver.freshet.version": driver.Version, "driver.freshet.platform": "systrap",
		"driver.freshet.snapshot": "true", "driver.freshet.standby": "true", "driver.freshet.gpu": "false",
	} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s is %s, not %s", name, got[name], want)
		}
	}
	if got["driver.freshet.runsc"] == "" {
		t.Error("nothing says which runsc it is")
	}
}

// TestFingerprintOfNoNode: what is missing is said, and by name.
func TestFingerprintOfNoNode(t *testing.T) {
	n := newNode(t, nil)
	config := n.config
	config.Worker = "/no/such/worker"
	config.Init = n.config.Runsc
	if err := n.set(config); err != nil {
		t.Fatal(err)
	}
	prints, err := n.Fingerprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if print := <-prints; print.Health != drivers.HealthStateUnhealthy || !strings.Contains(print.HealthDescription, "/no/such/worker") {
		t.Errorf("health %q: %s", print.Health, print.HealthDescription)
	}
}

// alike compares how tasks ended, but for the words that come with it.
func alike(a, b *drivers.ExitResult) bool {
	return a.ExitCode == b.ExitCode && a.Signal == b.Signal && a.OOMKilled == b.OOMKilled
}

func TestHowTasksEnd(t *testing.T) {
	n := newNode(t, nil)
	for name, c := range map[string]struct {
		script string
		want   drivers.ExitResult
	}{
		"well":       {"true", drivers.ExitResult{}},
		"with code":  {"exit 9", drivers.ExitResult{ExitCode: 9}},
		"by signal":  {"kill -USR1 $$", drivers.ExitResult{ExitCode: 138, Signal: 10}},
		"killed":     {"kill -KILL $$", drivers.ExitResult{ExitCode: 137, Signal: 9}},
		"by a child": {"sh -c 'exit 5'; exit $?", drivers.ExitResult{ExitCode: 5}},
		"of memory":  {"x=a; while true; do x=$x$x; done", drivers.ExitResult{ExitCode: 137, Signal: 9, OOMKilled: true}},
	} {
		t.Run(name, func(t *testing.T) {
			task, end := n.run(t, n.shell(c.script), nil)
			if !alike(end, &c.want) {
				t.Errorf("got %+v, want %+v", *end, c.want)
			}
			status, err := n.InspectTask(task.ID)
			if err != nil {
				t.Fatal(err)
			}
			if status.State != drivers.TaskStateExited || !alike(status.ExitResult, &c.want) || status.CompletedAt.Before(status.StartedAt) || status.Name != "box" {
				t.Errorf("inspect says %+v", status)
			}
			if again := task.wait(t); !alike(again, &c.want) {
				t.Errorf("asked again: %+v", *again)
			}
			if err := n.DestroyTask(task.ID, false); err != nil {
				t.Error(err)
			}
			if _, err := n.InspectTask(task.ID); !notFound(err) {
				t.Errorf("after destroy: %v", err)
			}
		})
	}
}

// TestTheImagesCommandRuns where the job names none.
func TestTheImagesCommandRuns(t *testing.T) {
	n := newNode(t, nil)
	if out := n.output(t, "image = \""+n.image+"\"\nnetwork_mode = \"none\"", nil); out != "of the image\n" {
		t.Errorf("it said %q", out)
	}
}

func TestStop(t *testing.T) {
	n := newNode(t, nil)
	waits := "trap 'echo got TERM; exit 3' TERM; trap 'echo got USR2; exit 4' USR2; echo ready; while true; do sleep 0.1; done"
	for name, c := range map[string]struct {
		script, signal string
		timeout        time.Duration
		want           drivers.ExitResult
	}{
		"asks by default":    {waits, "", patience, drivers.ExitResult{ExitCode: 3}},
		"by kill_signal":     {waits, "SIGUSR2", patience, drivers.ExitResult{ExitCode: 4}},
		"in small letters":   {waits, "sigusr2", patience, drivers.ExitResult{ExitCode: 4}},
		"kills who does not": {"trap '' TERM; echo ready; while true; do sleep 0.1; done", "SIGTERM", 100 * time.Millisecond, drivers.ExitResult{ExitCode: 137, Signal: 9}},
	} {
		t.Run(name, func(t *testing.T) {
			task := n.newTask(t, false, n.shell(c.script), nil)
			task.start(t)
			task.says(t, "ready")
			if took := task.stop(t, c.timeout, c.signal); took > patience/2 {
				t.Errorf("it took %s", took)
			}
			if end := task.wait(t); *end != c.want {
				t.Errorf("got %+v, want %+v", *end, c.want)
			}
			if err := n.StopTask(task.ID, 0, ""); err != nil {
				t.Errorf("stopped again: %v", err)
			}
		})
	}
}

// TestStopBeforeTheGuestRuns: a task that is stopped in the moment of its start ends.
func TestStopBeforeTheGuestRuns(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("exec sleep 1000"), nil)
	if _, _, err := n.StartTask(task.TaskConfig); err != nil {
		t.Fatal(err)
	}
	task.stop(t, 2*time.Second, "SIGTERM")
	if end := task.wait(t); end.Successful() {
		t.Errorf("it ended well: %+v", end)
	}
	if err := n.DestroyTask(task.ID, false); err != nil {
		t.Error(err)
	}
}

func TestSignal(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("trap 'echo got HUP' HUP; trap 'echo got USR1' USR1; echo ready; while true; do sleep 0.1; done"), nil)
	task.start(t)
	task.says(t, "ready")
	for _, signal := range []string{"SIGHUP", "SIGUSR1"} {
		if err := n.SignalTask(task.ID, signal); err != nil {
			t.Fatal(err)
		}
		task.says(t, "got "+strings.TrimPrefix(signal, "SIG"))
	}
	if err := n.SignalTask(task.ID, "SIGNONSENSE"); err == nil || !strings.Contains(err.Error(), "SIGNONSENSE") {
		t.Errorf("a signal that is none: %v", err)
	}
	if status, err := n.InspectTask(task.ID); err != nil || status.State != drivers.TaskStateRunning {
		t.Errorf("it is %+v, %v", status, err)
	}
}

// TestDestroy: by force where it runs.
func TestDestroy(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("exec sleep 1000"), nil)
	task.start(t)
	if err := n.DestroyTask(task.ID, false); err == nil || !strings.Contains(err.Error(), "runs") {
		t.Errorf("a running task was destroyed: %v", err)
	}
	if err := n.DestroyTask(task.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := n.InspectTask(task.ID); !notFound(err) {
		t.Errorf("after destroy: %v", err)
	}
}

// TestUnknownTasks: every call about one says so in the way that Nomad understands.
func TestUnknownTasks(t *testing.T) {
	n := newNode(t, nil)
	_, inspected := n.InspectTask("none")
	results, err := n.WaitTask(t.Context(), "none")
	if err != nil {
		t.Fatal(err) // what there is to say comes as a result
	}
	waited := (<-results).Err
	_, executed := n.ExecTask("none", []string{"true"}, time.Second)
	for name, err := range map[string]error{
		"inspect": inspected, "wait": waited, "exec": executed, "stop": n.StopTask("none", 0, ""),
		"signal": n.SignalTask("none", "SIGTERM"), "destroy": n.DestroyTask("none", true),
	} {
		if !notFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRestart: the client starts a task again in the same allocation, whose directories stay.
func TestRestart(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("echo run >>/local/runs; cat /local/runs; test -e /tmp/mark && echo marked; touch /tmp/mark"), nil)
	for range 3 {
		task.start(t)
		task.wait(t)
		if err := n.DestroyTask(task.ID, false); err != nil {
			t.Fatal(err)
		}
	}
	if out := task.read(t, "box.stdout.0"); strings.Count(out, "run\n") != 1+2+3 || strings.Contains(out, "marked") {
		t.Errorf("it said %q", out)
	}
}

// TestEvents: what people may want to read while a task starts, and how one ended that they did not expect.
func TestEvents(t *testing.T) {
	n := newNode(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := n.TaskEvents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	task, _ := n.run(t, n.shell("x=a; while true; do x=$x$x; done"), nil)
	for _, want := range []string{"pulling " + n.image, "more memory than its 128 MB"} {
		for {
			select {
			case event := <-events:
				if event.TaskID != task.ID || event.AllocID != task.AllocID || event.TaskName != "box" || event.Timestamp.IsZero() {
					t.Errorf("an event of another task: %+v", event)
				}
				if !strings.Contains(event.Message, want) {
					continue
				}
			case <-time.After(patience):
				t.Fatalf("no event says %q", want)
			}
			break
		}
	}
}
