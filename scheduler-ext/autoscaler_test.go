package autoscaler_test

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/internal/queue"
	autoscaler "github.com/freshet-dev/freshet/scheduler-ext"
	"github.com/freshet-dev/freshet/scheduler-ext/leader"
)

const patience = 20 * time.Second

// rig is an autoscaler between a real Nomad server and a real NATS server, and a function with 4 calls a worker, at most 5.
type rig struct {
	nomad    *api.Client
	nc       *nats.Conn
	js       jetstream.JetStream
	function queue.Function
	handler  http.Handler
	// fault is what Nomad answers to a scaling instead of doing it; 0 for nothing.
	fault atomic.Int64
	// faults counts those answers.
	faults atomic.Int64
}

// faulty is a client of Nomad whose scalings may meet the rig's fault.
func (r *rig) faulty(t *testing.T) *api.Client {
	t.Helper()
	target, err := url.Parse(r.nomad.Address())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1                    // the event stream
	proxy.ErrorLog = log.New(io.Discard, "", 0) // of streams that end with the test
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if status := r.fault.Load(); status != 0 && request.Method != http.MethodGet && strings.HasSuffix(request.URL.Path, "/scale") {
			r.faults.Add(1)
			http.Error(w, "no leader, or worse", int(status))
			return
		}
		proxy.ServeHTTP(w, request)
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	config := api.DefaultConfig()
	config.Address = server.URL
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// newRig makes one; tests with a rig of their own run beside each other, because they mostly wait.
func newRig(t *testing.T) *rig {
	t.Helper()
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not get ready")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := queue.Setup(t.Context(), js, queue.Settings{}); err != nil {
		t.Fatal(err)
	}
	r := &rig{nomad: nomadtest.Start(t), nc: nc, js: js, function: queue.Function{Namespace: "default", App: "app", Name: "f"}}
	r.register(t, 5)
	watcher := jobs.NewWatcher(r.nomad, nil, zerolog.Nop())
	watcher.Open(t.Context())
	t.Cleanup(watcher.Close)
	elector, err := leader.New(leader.Config{NATS: nc, Name: "test", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := elector.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(elector.Close)
	a, err := autoscaler.New(autoscaler.Config{NATS: nc, Nomad: r.faulty(t), Functions: watcher, Leader: elector, Registry: prometheus.NewRegistry(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	r.handler = a.Handler()
	eventually.True(t, "the function is known", func() bool { _, ok := watcher.Get("default", "app", "f"); return ok })
	return r
}

func (r *rig) register(t *testing.T, most int64) {
	t.Helper()
	job := &api.Job{
		ID: new("app.f"), Name: new("app.f"), Type: new("service"), Datacenters: []string{"*"},
		Meta: map[string]string{jobs.MetaApp: "app", jobs.MetaFunction: "f"},
		TaskGroups: []*api.TaskGroup{{
			Name: new("worker"), Count: new(0), Update: &api.UpdateStrategy{MaxParallel: new(0)},
			Scaling: &api.ScalingPolicy{
				Enabled: new(true), Min: new(int64(0)), Max: new(most),
				Policy: map[string]any{"scaledown_window": "1s", "target_inflight": 4},
			},
			Tasks: []*api.Task{{
				Name: "guest", Driver: jobs.Driver,
				Config: map[string]any{"code": "/srv/program", "handler": []map[string]any{{"type": "go"}}},
			}},
		}},
	}
	if err := jobs.Register(t.Context(), r.nomad, job); err != nil {
		t.Fatal(err)
	}
}

// publish puts calls into the queue, without a hint.
func (r *rig) publish(t *testing.T, count int) {
	t.Helper()
	for range count {
		msg, err := queue.Envelope{Function: r.function, Call: ulid.Make().String(), Published: time.Now()}.Message()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
}

// finish takes calls off the queue as a worker does.
func (r *rig) finish(t *testing.T, count int) {
	t.Helper()
	p, err := queue.OpenPuller(t.Context(), r.nc, r.function, 1, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	for range count {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		d, err := p.Next(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) count(t *testing.T) int {
	t.Helper()
	job, _, err := r.nomad.Jobs().Info("app.f", nil)
	if err != nil {
		t.Fatal(err)
	}
	return *job.TaskGroups[0].Count
}

func TestCountFollowsTheQueue(t *testing.T) {
	r := newRig(t)
	r.publish(t, 9)
	eventually.True(t, "3 workers for 9 calls, 4 each", func() bool { return r.count(t) == 3 })
	r.publish(t, 100)
	eventually.True(t, "no more than the maximum", func() bool { return r.count(t) == 5 })
	r.finish(t, 108)
	eventually.True(t, "1 worker for the last call, after the window", func() bool { return r.count(t) == 1 })
	r.finish(t, 1)
	eventually.True(t, "none without calls", func() bool { return r.count(t) == 0 })
}

func TestHintStartsAWorkerAtOnce(t *testing.T) {
	r := newRig(t)
	if err := r.nc.Publish(r.function.DemandSubject(), nil); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "a worker for the hint", func() bool { return r.count(t) == 1 })
	eventually.True(t, "none when nothing came of it", func() bool { return r.count(t) == 0 })
	recorder := httptest.NewRecorder()
	r.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if text := recorder.Body.String(); !strings.Contains(text, `freshet_autoscaler_reaction_seconds_count{direction="up"} 1`) {
		t.Errorf("metrics do not show the reaction: %s", text)
	}
}

// TestABurstGetsItsWorkersSoon: the hint of its first call counts as one, and the queue's depth follows at once, also after a pause.
func TestABurstGetsItsWorkersSoon(t *testing.T) {
	r := newRig(t)
	for range 4 {
		r.publish(t, 9)
		began := time.Now()
		if err := r.nc.Publish(r.function.DemandSubject(), nil); err != nil {
			t.Fatal(err)
		}
		eventually.True(t, "3 workers", func() bool { return r.count(t) == 3 })
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("a burst got its workers only after %s", took)
		}
		r.finish(t, 9)
		eventually.True(t, "none", func() bool { return r.count(t) == 0 })
	}
}

func TestHandSetCountIsBroughtBackToTheNeed(t *testing.T) {
	r := newRig(t)
	r.publish(t, 1)
	eventually.True(t, "a worker", func() bool { return r.count(t) == 1 })
	if _, _, err := r.nomad.Jobs().Scale("app.f", "worker", new(4), "by hand", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the one that is needed", func() bool { return r.count(t) == 1 })
}

func TestAnEnvironmentsLimitHolds(t *testing.T) {
	r := newRig(t)
	namespace := &api.Namespace{Name: "default", Meta: map[string]string{"freshet.max_workers": "2"}}
	if _, err := r.nomad.Namespaces().Register(namespace, nil); err != nil {
		t.Fatal(err)
	}
	r.publish(t, 100)
	eventually.True(t, "some workers", func() bool { return r.count(t) > 0 })
	eventually.True(t, "the limit's two, and not the five of the function's maximum", func() bool { return r.count(t) == 2 })
}

// why asks the autoscaler.
func (r *rig) why(t *testing.T) autoscaler.Why {
	t.Helper()
	recorder := httptest.NewRecorder()
	r.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/v1/scaling/app/f", nil))
	var why autoscaler.Why
	if err := json.Unmarshal(recorder.Body.Bytes(), &why); err != nil {
		t.Fatalf("%s: %v", recorder.Body, err)
	}
	return why
}

func TestWhatNomadRefusesIsTriedAgainAndTold(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusBadRequest, http.StatusTooManyRequests} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			r := newRig(t)
			r.fault.Store(int64(status))
			r.publish(t, 9)
			eventually.True(t, "it was tried again", func() bool { return r.faults.Load() >= 3 })
			if held := strings.Join(r.why(t).Held, "; "); !strings.Contains(held, "no leader, or worse") {
				t.Errorf("nobody is told why: %q", held)
			}
			tried := r.faults.Load()
			r.fault.Store(0)
			eventually.True(t, "3 workers in the end", func() bool { return r.count(t) == 3 })
			if tried > 50 {
				t.Errorf("Nomad was asked %d times without a pause", tried)
			}
			eventually.True(t, "nothing is held any more", func() bool { return !strings.Contains(strings.Join(r.why(t).Held, ";"), "refused") })
		})
	}
}

func TestADeploymentIsWaitedFor(t *testing.T) {
	r := newRig(t)
	job, _, err := r.nomad.Jobs().Info("app.f", nil)
	if err != nil {
		t.Fatal(err)
	}
	job.TaskGroups[0].Count = new(1)
	job.TaskGroups[0].Update = api.DefaultUpdateStrategy()
	if err := jobs.Stop(t.Context(), r.nomad, "default", "app.f"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.nomad.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	var deployment *api.Deployment
	eventually.True(t, "a deployment is in progress", func() bool {
		deployment, _, err = r.nomad.Jobs().LatestDeployment("app.f", nil)
		return err == nil && deployment != nil && deployment.Status == "running"
	})
	r.publish(t, 9)
	eventually.True(t, "it says what it waits for", func() bool { return strings.Contains(strings.Join(r.why(t).Held, ";"), "active deployment") })
	if _, _, err := r.nomad.Deployments().Fail(deployment.ID, nil); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "3 workers after the deployment", func() bool { return r.count(t) == 3 })
}

func TestADeletedFunctionIsForgottenAndANewOneFound(t *testing.T) {
	r := newRig(t)
	r.publish(t, 9)
	eventually.True(t, "3 workers", func() bool { return r.count(t) == 3 })
	if _, _, err := r.nomad.Jobs().Deregister("app.f", true, nil); err != nil { // its calls are still queued
		t.Fatal(err)
	}
	eventually.True(t, "it is not known any more", func() bool { return r.why(t).App == "" })
	r.register(t, 2)
	eventually.True(t, "the new one gets its two workers", func() bool { return r.why(t).App == "app" && r.count(t) == 2 })
}
