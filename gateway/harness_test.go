package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// patience bounds every wait for a condition.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startNATS runs a real server on the port (0: a free one) that keeps its streams in the directory.
func startNATS(tb testing.TB, dir string, port int) *server.Server {
	tb.Helper()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, MaxPayload: queue.MaxMessage,
		NoLog: true, NoSigs: true,
	})
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		tb.Fatal("NATS server does not get ready")
	}
	tb.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func connect(tb testing.TB, url string) *nats.Conn {
	tb.Helper()
	closed := make(chan struct{})
	nc, err := nats.Connect(url, nats.SetCustomDialer(queue.Dialer{}), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond),
		nats.RetryOnFailedConnect(true), nats.ReconnectJitter(0, 0), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { nc.Close(); <-closed })
	return nc
}

// fixed are functions that do not change while a test runs.
type fixed map[queue.Function]spec.Function

func (f fixed) Get(namespace, app, name string) (spec.Function, bool) {
	function, ok := f[queue.Function{Namespace: namespace, App: app, Name: name}]
	return function, ok
}

func (f fixed) Ready() bool { return true }

func (f fixed) Entry(key queue.Function) (jobs.Entry, bool) {
	function, ok := f[key]
	return jobs.Entry{Spec: function, Job: function.JobID(), Index: 1}, ok
}

func (f fixed) List() []jobs.Entry {
	var list []jobs.Entry
	for key := range f {
		entry, _ := f.Entry(key)
		list = append(list, entry)
	}
	return list
}

func (f fixed) Await(context.Context, string, string, string, string) {}

// registered are the functions that a deploy registered, and the jobs that it stopped. Nomad takes no function whose variable V is
// refused.
type registered struct {
	mu        sync.Mutex
	functions []spec.Function
	stopped   []string
	restored  []string
	// there are the jobs that there are now.
	there map[string]jobs.Job
	// warmed are jobs that were left behind.
	warmed []jobs.Warmed
	// gate, where there is one, is waited for in each registration.
	gate chan struct{}
}

func (r *registered) put(job jobs.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.there == nil {
		r.there = make(map[string]jobs.Job)
	}
	r.there[job.ID] = job
}

func (r *registered) Restart(context.Context, string, string) (int, error) { return 0, nil }

func (r *registered) App(_ context.Context, _, app string) ([]jobs.Job, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []jobs.Job
	for id, job := range r.there {
		if strings.HasPrefix(id, app+".") {
			all = append(all, job)
		}
	}
	return all, nil
}

func (r *registered) Register(ctx context.Context, f spec.Function) error {
	if r.gate != nil {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.Env["V"] == "refused" {
		return errors.New("no such region")
	}
	r.put(jobs.Job{ID: f.JobID(), Spec: f})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.functions = append(r.functions, f)
	return nil
}

func (r *registered) Restore(_ context.Context, job jobs.Job) error {
	r.put(job)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restored = append(r.restored, job.ID)
	return nil
}

func (r *registered) Warmed(context.Context) ([]jobs.Warmed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.warmed), nil
}

func (r *registered) PurgeWarmed(_ context.Context, left jobs.Warmed) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warmed = slices.DeleteFunc(r.warmed, func(w jobs.Warmed) bool { return w == left })
	return nil
}

func (r *registered) Warm(_ context.Context, f spec.Function) error {
	if f.Env["V"] == "broken" {
		return &wire.Error{Kind: wire.KindStart, Message: "no such file"}
	}
	if f.Env["V"] == "crowded" {
		return errors.Join(jobs.ErrNoRoom, &wire.Error{Kind: wire.KindStart, Message: "no node has room"})
	}
	return nil
}

func (r *registered) Build(_ context.Context, b jobs.Build, tell func(line string)) error {
	if b.Build.Target == "broken" {
		return &wire.Error{Kind: wire.KindUser, Message: "Dockerfile:1: no such stage"}
	}
	tell("[0] RUN true")
	tell("image freshet-image://sha256:" + builtImage)
	return nil
}

// Exec copies what is typed to what is written, and ends with the number of its arguments.
func (r *registered) Exec(_ context.Context, e jobs.Exec) (int, error) {
	if e.Command[0] == "missing" {
		return 0, &wire.Error{Kind: wire.KindInput, Message: "missing: no such program"}
	}
	if e.TTY {
		size := <-e.Sizes
		fmt.Fprintf(e.Stderr, "%d %d", size.Height, size.Width)
	}
	_, err := io.Copy(e.Stdout, e.Stdin)
	return len(e.Command) - 1, err
}

func (r *registered) Sandbox(_ context.Context, f spec.Function, use func(string) error) error {
	return use(f.JobID() + "-fresh")
}

func (r *registered) Usage(context.Context, string, string) (jobs.Usage, error) {
	return jobs.Usage{CPU: 50, Memory: 1 << 20}, nil
}

func (r *registered) Stop(_ context.Context, _, job string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.there, job)
	r.stopped = append(r.stopped, job)
	return nil
}

func functions(list ...spec.Function) fixed {
	f := make(fixed, len(list))
	for _, function := range list {
		function = function.WithDefaults()
		f[queue.Function{Namespace: function.Namespace, App: function.App, Name: function.Name}] = function
	}
	return f
}

func echo() spec.Function { return spec.Function{App: "demo", Name: "echo", Version: "v1"} }

func echoKey() queue.Function { return queue.Function{Namespace: "default", App: "demo", Name: "echo"} }

// rig is a gateway with its HTTP server and NATS connection.
type rig struct {
	*gateway.Gateway
	nc     *nats.Conn
	server *httptest.Server
	client *http.Client
}

// options of a rig, changed by tests before it is made.
type option func(*gateway.Config)

func newRig(tb testing.TB, url string, known gateway.Functions, options ...option) *rig {
	tb.Helper()
	nc := connect(tb, url)
	store, err := blobs.Open(tb.Context(), "file://"+tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	config := gateway.Config{
		NATS: nc, Functions: known, Blobs: store, Jobs: &registered{}, Registry: prometheus.NewRegistry(), Version: "test",
		Log: zerolog.New(zerolog.NewTestWriter(tb)).Level(zerolog.WarnLevel),
	}
	for _, change := range options {
		change(&config)
	}
	g, err := gateway.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	if err := g.Open(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	r := &rig{Gateway: g, nc: nc, server: httptest.NewServer(g.Handler())}
	r.client = r.server.Client()
	if transport, ok := r.client.Transport.(*http.Transport); ok {
		transport.MaxIdleConnsPerHost = 256
	}
	tb.Cleanup(r.close)
	return r
}

// close may be called early, to let a gateway die in the middle of a test.
func (r *rig) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = r.Close(ctx)
	r.server.Close()
}

// up waits until calls can be taken.
func (r *rig) up(tb testing.TB) *rig {
	tb.Helper()
	eventually.True(tb, "the gateway is ready", func() bool { return r.do(tb, http.MethodGet, "/readyz", nil, nil).status == http.StatusOK })
	return r
}

// answer is an HTTP answer, read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (r *rig) do(tb testing.TB, method, path string, body []byte, header http.Header) answer {
	tb.Helper()
	a, err := r.try(tb.Context(), method, path, body, header)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func (r *rig) try(ctx context.Context, method, path string, body []byte, header http.Header) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, r.server.URL+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := r.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close() //nolint:errcheck // reading it is what counts
	data, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, data}, err
}

const callEcho = "/v1/functions/demo/echo/call"

// worker takes calls with the real puller and ends them as a supervisor does: store, reply, acknowledge.
type worker struct {
	nc     *nats.Conn
	store  *queue.Store
	puller *queue.Puller
	run    func(*queue.Delivery) queue.Result
	ran    atomic.Int64
	// started leaves out the calls that were cancelled before.
	started atomic.Int64
	mute    atomic.Bool // store results, but send no replies
	done    sync.WaitGroup
	cancel  context.CancelFunc
}

// startWorker runs a worker of the echo function until the test ends. A nil run echoes.
func startWorker(tb testing.TB, url string, slots int, run func(*queue.Delivery) queue.Result) *worker {
	tb.Helper()
	if run == nil {
		run = func(d *queue.Delivery) queue.Result { return queue.Result{ContentType: d.ContentType, Body: d.Body} }
	}
	return startWorkerOf(tb, url, slots, func(*worker) func(*queue.Delivery) queue.Result { return run })
}

// startWorkerOf is startWorker for a run that needs its worker.
func startWorkerOf(tb testing.TB, url string, slots int, run func(*worker) func(*queue.Delivery) queue.Result) *worker {
	tb.Helper()
	return startWorkerFor(tb, url, echoKey(), slots, run)
}

// startWorkerFor is startWorkerOf for another function.
func startWorkerFor(tb testing.TB, url string, key queue.Function, slots int, run func(*worker) func(*queue.Delivery) queue.Result) *worker {
	tb.Helper()
	nc := connect(tb, url)
	store, err := queue.OpenStore(nc, "alloc-1")
	if err != nil {
		tb.Fatal(err)
	}
	puller, err := queue.OpenPuller(tb.Context(), nc, key, slots, zerolog.Nop())
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := puller.Start(); err != nil {
		tb.Fatal(err)
	}
	w := &worker{nc: nc, store: store, puller: puller, cancel: cancel}
	w.run = run(w)
	for range slots {
		w.done.Go(func() { w.loop(ctx, tb) })
	}
	tb.Cleanup(w.stop)
	return w
}

func (w *worker) loop(ctx context.Context, tb testing.TB) {
	for {
		d, err := w.puller.Next(ctx)
		if err != nil {
			return
		}
		if err := w.end(ctx, d); err != nil && !errors.Is(err, context.Canceled) {
			tb.Logf("worker: %v", err)
		}
	}
}

func (w *worker) end(ctx context.Context, d *queue.Delivery) error {
	w.ran.Add(1)
	var result queue.Result
	select {
	case <-d.Cancelled():
		result.Error = &wire.Error{Kind: wire.KindCancelled}
	default:
		w.started.Add(1)
		result = w.run(d)
	}
	result.Call, result.Attempt, result.Worker, result.Keep = d.Call, d.Attempt, "alloc-1", d.Keep
	result.Queued = d.Received.Sub(d.Published)
	reply := d.Reply
	if w.mute.Load() {
		reply = ""
	}
	if _, err := w.store.Put(ctx, result, reply); err != nil {
		return errors.Join(err, d.Return(0))
	}
	return d.Ack()
}

func (w *worker) stop() {
	w.cancel()
	w.done.Wait()
	w.puller.Close()
	w.store.Close()
}

// beat says what a worker of the echo function says of itself.
func (w *worker) beat(tb testing.TB, state queue.State, slots, busy int) {
	tb.Helper()
	data, err := queue.Heartbeat{
		Namespace: "default", App: "demo", Function: "echo", Alloc: "alloc-1", State: state, Slots: slots, Busy: busy,
	}.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	if err := w.nc.Publish(echoKey().WorkerSubject("alloc-1"), data); err != nil {
		tb.Fatal(err)
	}
}

func failing(kind wire.Kind) func(*queue.Delivery) queue.Result {
	return func(*queue.Delivery) queue.Result {
		return queue.Result{Error: &wire.Error{Kind: kind, Message: "as asked", Type: "*demo.Error", Traceback: "main.go"}}
	}
}

// js is JetStream over the gateway's own connection.
func (r *rig) js(tb testing.TB) jetstream.JetStream {
	tb.Helper()
	js, err := jetstream.New(r.nc)
	if err != nil {
		tb.Fatal(err)
	}
	return js
}
