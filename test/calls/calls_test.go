// Package calls tests every way to call a function through the whole system: real NATS, Nomad and gVisor, each component its own
// process.
package calls

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/local"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// patience bounds every wait for a condition.
const patience = 90 * time.Second

// cluster is a running `freshet up`, shared by all tests: a start takes seconds. Its gateway asks for tokens.
type cluster struct {
	dir    string
	state  *local.State
	up     *exec.Cmd
	output bytes.Buffer
}

var shared cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-calls-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // the next run has another
	shared.dir = dir
	if err := shared.start(); err != nil {
		fmt.Fprintln(os.Stderr, errors.Join(err, shared.stop()), shared.output.String())
		return 1
	}
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (c *cluster) start() error {
	c.up = exec.Command(c.program(), "up", "--state", c.dir, "--auth")
	c.up.Stdout, c.up.Stderr = &c.output, &c.output
	if err := c.up.Start(); err != nil {
		return fmt.Errorf("start cluster: %w: FRESHET_BIN must name the folder of freshet's programs: use `make test`", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for c.state == nil {
		c.state, _ = local.LoadState(c.dir)
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("freshet up wrote no state")
		}
	}
	if err := c.state.Ready(ctx); err != nil {
		return err
	}
	if out, err := c.freshet("deploy", "guest"); err != nil {
		return fmt.Errorf("deploy: %w: %s", err, out)
	}
	return nil
}

func (c *cluster) stop() error {
	if c.up.Process == nil {
		return nil
	}
	return errors.Join(c.up.Process.Signal(syscall.SIGTERM), c.up.Wait())
}

func (c *cluster) program() string { return filepath.Join(os.Getenv("FRESHET_BIN"), "freshet") }

// freshet runs the command line, which finds the cluster's token by itself.
func (c *cluster) freshet(args ...string) (string, error) {
	cmd := exec.Command(c.program(), args...)
	cmd.Env = append(os.Environ(), "FRESHET_STATE="+c.dir)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

func api(t *testing.T) *client.Client {
	t.Helper()
	return client.New(shared.state.Gateway(), client.Token(shared.state.Token))
}

// request sends a plain HTTP request and returns the answer read to its end.
func request(t *testing.T, method, path string, body io.Reader) (int, http.Header, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, shared.state.Gateway()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+shared.state.Token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, data
}

// view is a call as the API shows it.
type view struct {
	Status string                `json:"status"`
	Error  *wire.Error           `json:"error"`
	Failed []queue.FailedAttempt `json:"failed_attempts"`
	Output json.RawMessage       `json:"output"`
}

func look(t *testing.T, call, wait string) view {
	t.Helper()
	status, _, body := request(t, http.MethodGet, "/v1/calls/"+call+"?wait="+wait, nil)
	var v view
	if err := json.Unmarshal(body, &v); err != nil || status != http.StatusOK {
		t.Fatalf("call %s: %d %s", call, status, body)
	}
	return v
}

func spawn(t *testing.T, function, input string) string {
	t.Helper()
	call, err := api(t).Spawn(t.Context(), client.Request{Function: "calls." + function, Body: []byte(input), ContentType: "application/json"})
	if err != nil {
		t.Fatal(err)
	}
	return call
}

func TestSpawnResultAndCommands(t *testing.T) {
	call := spawn(t, "echo", `{"a":1}`)
	response, err := api(t).Result(t.Context(), call)
	if err != nil || string(response.Body) != `{"a":1}` {
		t.Fatalf("%s, %v", response.Body, err)
	}
	id, err := shared.freshet("spawn", "calls.echo", `{"b":2}`)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := shared.freshet("result", strings.TrimSpace(id)); err != nil || out != `{"b":2}` {
		t.Errorf("freshet result: %q, %v", out, err)
	}
	out, err := shared.freshet("calls", "calls.echo")
	if err != nil || !strings.Contains(out, call) || !strings.Contains(out, "done") {
		t.Errorf("freshet calls: %s, %v", out, err)
	}
	if status, _, _ := func() (int, http.Header, []byte) {
		response, err := http.Post(shared.state.Gateway()+"/v1/functions/calls/echo/call", "application/json", strings.NewReader("1"))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode, nil, nil
	}(); status != http.StatusUnauthorized {
		t.Errorf("a call without a token: %d", status)
	}
}

// TestCancelReachesTheGuest, which logs that it heard of it, and frees its slot.
func TestCancelReachesTheGuest(t *testing.T) {
	call := spawn(t, "sleep", "300000")
	eventually.True(t, "it runs", func() bool { return look(t, call, "0s").Status == "running" })
	if out, err := shared.freshet("cancel", call); err != nil {
		t.Fatal(out, err)
	}
	if v := look(t, call, "0s"); v.Status != "cancelled" {
		t.Errorf("%+v", v)
	}
	eventually.True(t, "the guest heard of it", func() bool {
		out, err := shared.freshet("logs", "calls.sleep")
		return err == nil && strings.Contains(out, "cancelled")
	})
	if _, err := client.Call[int, int](t.Context(), api(t), "calls.sleep", 1); err != nil {
		t.Errorf("the worker does not go on: %v", err)
	}
}

// TestQueuedCallsOfABatchAreCancelled without having run.
func TestQueuedCallsOfABatchAreCancelled(t *testing.T) {
	lines := strings.Repeat("60000\n", 50)
	_, header, _ := request(t, http.MethodPost, "/v1/functions/calls/sleep/batch", strings.NewReader(lines))
	batch := header.Get("Freshet-Batch")
	if out, err := shared.freshet("cancel", batch); err != nil {
		t.Fatal(out, err)
	}
	eventually.True(t, "all of them ended", func() bool {
		var b struct{ Finished int }
		_, _, body := request(t, http.MethodGet, "/v1/batches/"+batch, nil)
		return json.Unmarshal(body, &b) == nil && b.Finished == 50
	})
	_, _, body := request(t, http.MethodGet, "/v1/batches/"+batch+"/results?status=cancelled", nil)
	if count := bytes.Count(body, []byte("\n")) - 1; count != 50 {
		t.Errorf("%d were cancelled", count)
	}
}

func TestRetriesAreCountedAndTold(t *testing.T) {
	began := time.Now()
	call := spawn(t, "flaky", "3")
	v := look(t, call, "60s")
	if v.Status != "done" || string(v.Output) != "3" || len(v.Failed) != 2 || v.Failed[0].Error.Message != "not yet" {
		t.Fatalf("%+v", v)
	}
	first, second := v.Failed[0].Ended, v.Failed[1].Ended
	if gap := second.Sub(first); gap < 200*time.Millisecond {
		t.Errorf("the second attempt came %s after the first, in %s", gap, time.Since(began))
	}
	call = spawn(t, "flaky", "9")
	if v := look(t, call, "60s"); v.Status != "failed" || len(v.Failed) != 3 {
		t.Errorf("beyond its retries: %+v", v)
	}
}

// TestPoisonIsKeptAndReplayed: what ends its worker is no trouble for others, and can be looked at.
func TestPoisonIsKeptAndReplayed(t *testing.T) {
	call := spawn(t, "poison", "true")
	if v := look(t, call, "120s"); v.Status != "failed" || v.Error.Kind != wire.KindCrash {
		t.Fatalf("%+v", v)
	}
	if out, err := client.Call[bool, string](t.Context(), api(t), "calls.poison", false); err != nil || out != "alive" {
		t.Errorf("its neighbour: %q, %v", out, err)
	}
	out, err := shared.freshet("calls", "--dead")
	if err != nil || !strings.Contains(out, call) || !strings.Contains(out, "crash") {
		t.Errorf("freshet calls --dead: %s, %v", out, err)
	}
	if out, err := shared.freshet("calls", "replay", call); err != nil {
		t.Fatal(out, err)
	}
	eventually.True(t, "it fails again, and its attempts are counted on", func() bool {
		v := look(t, call, "60s")
		return v.Status == "failed" && len(v.Failed) >= 2
	})
}

func TestStreamsOfAGenerator(t *testing.T) {
	next := 0
	for value, err := range api(t).Stream(t.Context(), client.Request{Function: "calls.count", Body: []byte("2000"), ContentType: "application/json"}) {
		if err != nil {
			t.Fatal(err)
		}
		if string(value) != strconv.Itoa(next) {
			t.Fatalf("value %d is %s", next, value)
		}
		next++
	}
	if next != 2000 {
		t.Errorf("%d values", next)
	}
	all, err := client.Call[int, []int](t.Context(), api(t), "calls.count", 5)
	if err != nil || len(all) != 5 {
		t.Errorf("all at once: %v, %v", all, err)
	}
	for range 8 { // more than it has slots: each that is left frees its own
		for range api(t).Stream(t.Context(), client.Request{Function: "calls.count", Body: []byte("1000000"), ContentType: "application/json"}) {
			break
		}
	}
	if all, err := client.Call[int, []int](t.Context(), api(t), "calls.count", 5); err != nil || len(all) != 5 {
		t.Errorf("after streams that were left: %v, %v", all, err)
	}
}

// numbers is a body of so many lines, made as it is read.
func numbers(count int) io.Reader {
	in, out := io.Pipe()
	go func() {
		buffer := bytes.NewBuffer(make([]byte, 0, 64<<10))
		for i := range count {
			buffer.WriteString(strconv.Itoa(i))
			buffer.WriteByte('\n')
			if buffer.Len() > 60<<10 || i == count-1 {
				if _, err := buffer.WriteTo(out); err != nil {
					return
				}
			}
		}
		_ = out.Close()
	}()
	return in
}

func TestMapOfTenThousand(t *testing.T) {
	const count = 10_000
	if _, err := client.Call[int, int](t.Context(), api(t), "calls.echo", 1); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, _, body := request(t, http.MethodPost, "/v1/functions/calls/echo/map?order=input&window=512", numbers(count))
	took := time.Since(began)
	lines := bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	if len(lines) != count+1 || !bytes.Contains(lines[count], []byte(`"failed":0`)) {
		t.Fatalf("%d lines, the last %s", len(lines), lines[len(lines)-1])
	}
	t.Logf("map of %d: %s, %.0f a second", count, took.Round(time.Millisecond), count/took.Seconds())
}

// gatewayMemory is the resident memory of the gateway's process in MB.
func gatewayMemory(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		args := strings.Split(string(data), "\x00")
		if err != nil || len(args) < 2 || args[0] != shared.program() || args[1] != "gateway" {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		kb, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		return kb >> 10
	}
	t.Fatal("the gateway does not run")
	return 0
}

// TestManySpawnedCallsAreCountedExactly, by default 20,000: FRESHET_MANY says how many.
func TestManySpawnedCallsAreCountedExactly(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("FRESHET_MANY"))
	if err != nil {
		count = 20_000
	}
	before := gatewayMemory(t)
	began := time.Now()
	status, header, body := request(t, http.MethodPost, "/v1/functions/calls/echo/batch", numbers(count))
	accepted := time.Since(began)
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	most := gatewayMemory(t)
	batch := header.Get("Freshet-Batch")
	deadline := time.Now().Add(25 * time.Minute)
	for tick := time.NewTicker(time.Second); ; <-tick.C {
		var b struct{ Inputs, Finished int }
		if _, _, body := request(t, http.MethodGet, "/v1/batches/"+batch, nil); json.Unmarshal(body, &b) != nil || b.Inputs != count {
			t.Fatalf("%s", body)
		}
		most = max(most, gatewayMemory(t))
		if b.Finished == count {
			tick.Stop()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d are done", b.Finished, count)
		}
	}
	executed := time.Since(began)
	_, _, results := request(t, http.MethodGet, "/v1/batches/"+batch+"/results", nil)
	most = max(most, gatewayMemory(t))
	next := 0
	for line := range bytes.SplitSeq(bytes.TrimSpace(results), []byte("\n")) {
		var got struct {
			Index  int
			Done   bool
			Output json.RawMessage
			Failed int
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		if got.Done {
			if got.Failed != 0 || next != count {
				t.Errorf("the end: %s after %d", line, next)
			}
			break
		}
		if got.Index != next {
			t.Fatalf("line %d: %s", next, line)
		}
		next++
	}
	t.Logf("%d calls: accepted in %s, done after %s; the gateway had %d MB before and %d MB at most", count,
		accepted.Round(time.Millisecond), executed.Round(time.Millisecond), before, most)
}
