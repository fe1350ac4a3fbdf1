// Package deploys tests deploys under traffic through the whole system: real NATS, Nomad and gVisor, each component its own process.
package deploys

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/test/clustertest"
)

const (
	// patience bounds every wait for a condition.
	patience = 90 * time.Second
	// lag is how long after a deploy's answer Nomad may take to stop the old workers.
	lag = 10 * time.Second
)

// shared is the cluster of all tests: a start takes seconds.
var shared *clustertest.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-deploys-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = &clustertest.Cluster{Bin: os.Getenv("FRESHET_BIN"), Dir: dir}
	code := 1
	if err := shared.Up(); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err, "FRESHET_BIN must name the folder of freshet's programs: use `make test`")
	}
	if err := shared.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code != 0 {
		shared.TellLogs(os.Stderr)
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// answer is what the guest says.
type answer struct {
	Version string `json:"version"`
	Attempt int    `json:"attempt"`
	Input   int    `json:"input"`
}

// call asks once, as curl does: what fails is not tried again.
func call(ctx context.Context, function string, input int) (answer, error) {
	a, _, err := post(ctx, function, "call", input)
	return a, err
}

func post(ctx context.Context, function, way string, input int) (answer, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, shared.State.Gateway()+"/v1/functions/deploys/"+function+"/"+way, strings.NewReader(strconv.Itoa(input)))
	if err != nil {
		return answer{}, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, nil, err
	}
	if response.StatusCode/100 != 2 {
		return answer{}, nil, fmt.Errorf("%s %s: %s: %s", way, function, response.Status, body)
	}
	var a answer
	return a, body, json.Unmarshal(body, &a)
}

func deploy(t *testing.T, version string, flags ...string) {
	t.Helper()
	if out, err := shared.Freshet(append([]string{"deploy", "guest", "-e", "V=" + version}, flags...)...); err != nil {
		t.Fatalf("deploy %s: %v: %s", version, err, out)
	}
}

// era is when a version may have answered: from when its deploy began until the workers of the next one took over.
type era struct {
	version     string
	from, until time.Time
}

// timeline is which versions there were.
type timeline struct {
	mu   sync.Mutex
	eras []era
}

// change does what makes a version the current one.
func (l *timeline) change(version string, do func()) {
	l.mu.Lock()
	l.eras = append(l.eras, era{version: version, from: time.Now()})
	l.mu.Unlock()
	do()
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.eras) - 2; last >= 0 {
		l.eras[last].until = time.Now().Add(lag)
	}
}

// allows tells whether a version may have answered a call.
func (l *timeline) allows(version string, began, ended time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.eras {
		if e.version == version && ended.After(e.from) && (e.until.IsZero() || began.Before(e.until)) {
			return true
		}
	}
	return false
}

// traffic is calls of all ways, and what came of them.
type traffic struct {
	t    *testing.T
	line *timeline

	mu       sync.Mutex
	answers  map[string]int // by way
	versions map[string]int
}

func (r *traffic) note(way string, input int, a answer, began time.Time, err error) {
	switch {
	case err != nil:
		r.t.Errorf("%s of %d: %v", way, input, err)
	case a.Input != input:
		r.t.Errorf("%s of %d was answered for %d", way, input, a.Input)
	case !r.line.allows(a.Version, began, time.Now()):
		r.t.Errorf("%s of %d, begun %s ago, was answered by version %s; there were %+v", way, input, time.Since(began), a.Version, r.line.eras)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[way]++
	r.versions[a.Version]++
}

// calls asks and waits, one call after the other, until the context ends.
func (r *traffic) calls(ctx context.Context, function string, input func(n int) int) {
	for n := 0; ctx.Err() == nil; n++ {
		began, in := time.Now(), input(n)
		patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		a, err := call(patient, function, in)
		cancel()
		r.note("call of "+function, in, a, began, err)
	}
}

// spawns queues calls and then reads all results.
func (r *traffic) spawns(ctx context.Context) {
	began := time.Now()
	ids := make(map[string]int)
	for n := 0; ctx.Err() == nil; n++ {
		_, body, err := post(context.WithoutCancel(ctx), "tell", "spawn", n)
		var made struct{ Call string }
		if err != nil || json.Unmarshal(body, &made) != nil || made.Call == "" {
			r.t.Errorf("spawn %d: %v: %s", n, err, body)
			continue
		}
		ids[made.Call] = n
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	results := client.New(shared.State.Gateway())
	for id, n := range ids {
		response, err := results.Result(context.WithoutCancel(ctx), id)
		var a answer
		if err == nil {
			err = json.Unmarshal(response.Body, &a)
		}
		r.note("spawn", n, a, began, err)
	}
}

// maps runs one map for the whole time.
func (r *traffic) maps(ctx context.Context) {
	began, sent, got := time.Now(), 0, 0
	inputs := func(yield func([]byte) bool) {
		for ctx.Err() == nil && yield([]byte(strconv.Itoa(sent))) {
			sent++
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*patience)
	defer cancel()
	c := client.New(shared.State.Gateway())
	for item, err := range c.Map(whole, client.Request{Function: "deploys.tell"}, iter.Seq[[]byte](inputs), 8) {
		if err == nil {
			err = item.Err
		}
		var a answer
		if err == nil {
			err = json.Unmarshal(item.Response.Body, &a)
		}
		r.note("map", got, a, began, err)
		got++
	}
	if got != sent {
		r.t.Errorf("the map answered %d of %d items", got, sent)
	}
}

// TestDeploysUnderTraffic deploys and rolls back again and again while calls of every way come: none fails, none is lost, and each is
// answered by a version that there was.
func TestDeploysUnderTraffic(t *testing.T) {
	length := 10 * time.Second
	if os.Getenv("LONG") != "" {
		length = time.Minute
	}
	line := &timeline{}
	line.change("0", func() { deploy(t, "0") })
	r := &traffic{t: t, line: line, answers: make(map[string]int), versions: make(map[string]int)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { r.calls(ctx, "tell", func(n int) int { return n }) })
	}
	for range 2 {
		all.Go(func() { r.calls(ctx, "hold", func(n int) int { return 200 + n%7*100 }) })
	}
	all.Go(func() { r.spawns(ctx) })
	all.Go(func() { r.maps(ctx) })
	deploys, began := 0, time.Now()
	for before, next := "0", ""; time.Since(began) < length || deploys < 3; deploys++ {
		strategy := "--strategy=" + []string{"rolling", "recreate"}[deploys%2]
		if deploys%3 == 2 { // to the deploy before the last
			next = before
			line.change(next, func() {
				if out, err := shared.Freshet("rollback", "deploys", strategy); err != nil {
					t.Errorf("roll back: %v: %s", err, out)
				}
			})
		} else {
			line.mu.Lock()
			before, next = line.eras[len(line.eras)-1].version, strconv.Itoa(deploys+1)
			line.mu.Unlock()
			line.change(next, func() { deploy(t, next, strategy) })
		}
		eventually.True(t, "version "+next+" answers", func() bool {
			a, err := call(ctx, "tell", 1)
			return err == nil && a.Version == next
		})
	}
	stop()
	all.Wait()
	t.Logf("%d deploys; answers %v, by version %v", deploys, r.answers, r.versions)
	for _, way := range []string{"call of tell", "call of hold", "spawn", "map"} {
		if r.answers[way] < 10 {
			t.Errorf("only %d answers to %s", r.answers[way], way)
		}
	}
	if deploys < 3 || len(r.versions) < 2 {
		t.Errorf("%d deploys, answers by %d versions", deploys, len(r.versions))
	}
}

// TestStrategySaysWhereRunningCallsEnd: on the version that began them, or anew on the next.
func TestStrategySaysWhereRunningCallsEnd(t *testing.T) {
	for _, c := range []struct {
		strategy, version string
		attempt           int
	}{{"rolling", "old rolling", 1}, {"recreate", "new recreate", 2}} {
		deploy(t, "old "+c.strategy)
		eventually.True(t, "the old version answers", func() bool {
			a, err := call(t.Context(), "hold", 1)
			return err == nil && a.Version == "old "+c.strategy
		})
		running := make(chan answer, 1)
		go func() {
			a, err := call(t.Context(), "hold", 3000)
			if err != nil {
				t.Error(err)
			}
			running <- a
		}()
		eventually.True(t, "the call runs", func() bool {
			for _, beat := range shared.Workers(t, "deploys", "hold") {
				if beat.Busy == 1 {
					return true
				}
			}
			return false
		})
		deploy(t, "new "+c.strategy, "--strategy", c.strategy)
		if a := <-running; a.Version != c.version || a.Attempt != c.attempt {
			t.Errorf("%s: answered by %+v, want %s at attempt %d", c.strategy, a, c.version, c.attempt)
		}
		eventually.True(t, "the new version answers", func() bool {
			a, err := call(t.Context(), "hold", 1)
			return err == nil && a.Version == "new "+c.strategy
		})
	}
}

// TestFailedDeploysLeaveTheRunningVersion: what does not start, and what would replace a job of somebody else.
func TestFailedDeploysLeaveTheRunningVersion(t *testing.T) {
	deploy(t, "good")
	eventually.True(t, "it answers", func() bool {
		a, err := call(t.Context(), "tell", 1)
		return err == nil && a.Version == "good"
	})
	if out, err := shared.Freshet("deploy", "guest", "-e", "V=broken"); err == nil || !strings.Contains(out, "does not start, so nothing was deployed") {
		t.Errorf("a version that does not start: %v: %s", err, out)
	}
	if a, err := call(t.Context(), "tell", 2); err != nil || a.Version != "good" || a.Attempt != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	nomad, err := api.NewClient(&api.Config{Address: shared.State.Nomad()})
	if err != nil {
		t.Fatal(err)
	}
	left, _, err := nomad.Jobs().List(&api.QueryOptions{Filter: `ID matches "[.]warm$"`})
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	out, err := shared.Freshet("deploy", "guest", "-e", "V=good")
	if err != nil || !strings.Contains(out, "is so already") {
		t.Errorf("the same again: %v: %s", err, out)
	}
}

// TestDeploysFasterThanStarts deploys one version after the other without a pause: calls go on, each of a version that there was.
func TestDeploysFasterThanStarts(t *testing.T) {
	deploy(t, "slow", "--no-warm")
	eventually.True(t, "it answers", func() bool {
		a, err := call(t.Context(), "tell", 1)
		return err == nil && a.Version == "slow"
	})
	ctx, stop := context.WithCancel(t.Context())
	longest, answered := make(chan time.Duration, 1), 0
	go func() {
		var most time.Duration
		for ; ctx.Err() == nil; answered++ {
			began := time.Now()
			if _, err := call(context.WithoutCancel(ctx), "tell", 1); err != nil {
				t.Error(err)
			}
			most = max(most, time.Since(began))
		}
		longest <- most
	}()
	for i := range 4 {
		for name, flags := range map[string][]string{"started first": nil, "not started first": {"--no-warm"}} {
			began := time.Now()
			deploy(t, fmt.Sprintf("fast %s %d", name, i), flags...)
			t.Logf("deployed, %s, in %s", name, time.Since(began).Round(10*time.Millisecond))
		}
	}
	stop()
	if most := <-longest; most > lag || answered < 10 {
		t.Errorf("%d calls were answered, the slowest in %s", answered, most)
	} else {
		t.Logf("%d calls were answered, the slowest in %s", answered, most.Round(time.Millisecond))
	}
}

// TestCallersOfWhatDoesNotStart: an image that is nowhere is told to those who wait, and to those who look at their calls.
func TestCallersOfWhatDoesNotStart(t *testing.T) {
	const manifest = `{"format":1,"app":"broken","functions":[{"app":"broken","name":"none","image":"127.0.0.1:1/none:1","handler":{"type":"exec"},"command":"cat"}]}`
	gateway := shared.State.Gateway()
	send := func(method, path, body string) (int, http.Header, string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, method, gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }() // it was read
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, response.Header, string(text)
	}
	if status, _, text := send("PUT", "/v1/apps/broken", manifest); status != http.StatusOK {
		t.Fatalf("%d: %s", status, text)
	}
	t.Cleanup(func() {
		if out, err := shared.Freshet("delete", "broken"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	began := time.Now()
	status, header, text := send("POST", "/v1/functions/broken/none/call", "1")
	if status != http.StatusServiceUnavailable || header.Get("Freshet-Error") != "start" || !strings.Contains(text, "127.0.0.1:1/none:1") {
		t.Errorf("%d %v: %s", status, header, text)
	}
	t.Logf("told after %s: %s", time.Since(began).Round(time.Millisecond), text)
	_, _, text = send("POST", "/v1/functions/broken/none/spawn", "1")
	var spawned struct{ URL string }
	if err := json.Unmarshal([]byte(text), &spawned); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	eventually.True(t, "the queued call says why it waits", func() bool {
		var view struct {
			Status string
			Waits  []string `json:"waits_for"`
		}
		_, _, text = send("GET", spawned.URL, "")
		return json.Unmarshal([]byte(text), &view) == nil && view.Status == "queued" && strings.Contains(strings.Join(view.Waits, "\n"), "127.0.0.1:1/none:1")
	})
}
