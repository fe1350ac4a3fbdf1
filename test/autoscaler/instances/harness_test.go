// Package instances tests autoscalers as processes of their own, between a real NATS and a real Nomad server without nodes.
package instances

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/internal/queue"
)

type rig struct {
	nomad   *api.Client
	address string // Nomad's
	nc      *nats.Conn
	js      jetstream.JetStream
	url     string // NATS's
	consul  string // its agent's address, where the instances lock there
}

func newRig(t *testing.T) *rig {
	t.Helper()
	users := []*server.User{{Username: "test", Password: "test"}}
	allowed := queue.RoleAutoscaler.Permissions() // the autoscalers get no more than in production
	users = append(users, &server.User{Username: "autoscaler", Password: "secret", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: allowed.Publish}, Subscribe: &server.SubjectPermission{Allow: allowed.Subscribe},
	}})
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true, Users: users,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS does not get ready")
	}
	nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("test", "test"))
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
	nomad := nomadtest.Start(t)
	return &rig{nomad: nomad, address: nomad.Address(), nc: nc, js: js, url: s.ClientURL()}
}

// instance is an autoscaler's process.
type instance struct {
	cmd     *exec.Cmd
	address string
	log     string
}

func (r *rig) start(t *testing.T) *instance {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	bin := os.Getenv("FRESHET_BIN")
	if bin == "" {
		t.Fatal("FRESHET_BIN must name the folder of freshet's programs: use `make test`")
	}
	i := &instance{address: "http://" + address, log: filepath.Join(t.TempDir(), "log")}
	log, err := os.Create(i.log)
	if err != nil {
		t.Fatal(err)
	}
	i.cmd = exec.Command(filepath.Join(bin, "freshet"), "autoscaler", "--listen", address, "--nats", r.url, "--nomad", r.address)
	i.cmd.Env = append(os.Environ(), "FRESHET_NATS_USER=autoscaler", "FRESHET_NATS_PASSWORD=secret")
	if r.consul != "" {
		i.cmd.Args = append(i.cmd.Args, "--lock", "consul")
		i.cmd.Env = append(i.cmd.Env, "CONSUL_HTTP_ADDR="+r.consul)
	}
	i.cmd.Stdout, i.cmd.Stderr = log, log
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = i.cmd.Process.Kill() // it may have ended
		_ = i.cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(i.log)
			t.Logf("autoscaler: %s", text[max(0, len(text)-3000):])
		}
	})
	return i
}

// acts tells that the instance says so itself.
func (r *rig) acting(t *testing.T, i *instance) bool {
	t.Helper()
	return strings.Contains(r.metrics(t, i), "\nfreshet_autoscaler_acting 1\n")
}

// cpu is the processor time that the process used.
func (i *instance) cpu(t *testing.T) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", i.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func (i *instance) kill(t *testing.T) {
	t.Helper()
	if err := i.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func function(number int) queue.Function {
	return queue.Function{Namespace: "default", App: "app", Name: fmt.Sprintf("f%d", number)}
}

// register makes a function's job, with at most 5 workers of 4 calls each.
func (r *rig) register(ctx context.Context, number int) error {
	f := function(number)
	return jobs.Register(ctx, r.nomad, &api.Job{
		ID: new("app." + f.Name), Name: new("app." + f.Name), Type: new("service"), Datacenters: []string{"*"},
		Meta: map[string]string{jobs.MetaApp: "app", jobs.MetaFunction: f.Name},
		TaskGroups: []*api.TaskGroup{{
			Name: new("worker"), Count: new(0), Update: &api.UpdateStrategy{MaxParallel: new(0)},
			Scaling: &api.ScalingPolicy{
				Enabled: new(true), Min: new(int64(0)), Max: new(int64(5)),
				Policy: map[string]any{"scaledown_window": "2s", "target_inflight": 4},
			},
			Tasks: []*api.Task{{
				Name: "guest", Driver: jobs.Driver,
				Config: map[string]any{"code": "/srv/program", "handler": []map[string]any{{"type": "go"}}},
			}},
		}},
	})
}

// publish puts calls into a function's queue, and says so as a gateway does.
func (r *rig) publish(t *testing.T, f queue.Function, calls int) {
	t.Helper()
	for range calls {
		msg, err := queue.Envelope{Function: f, Call: ulid.Make().String(), Published: time.Now()}.Message()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	r.hint(t, f)
}

func (r *rig) hint(t *testing.T, f queue.Function) {
	t.Helper()
	if err := r.nc.Publish(f.DemandSubject(), nil); err != nil {
		t.Fatal(err)
	}
}

// scalings are a function's, the oldest first.
func (r *rig) scalings(t *testing.T, f queue.Function) []api.ScalingEvent {
	t.Helper()
	status, _, err := r.nomad.Jobs().ScaleStatus(f.App+"."+f.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	events := status.TaskGroups["worker"].Events
	for a, b := 0, len(events)-1; a < b; a, b = a+1, b-1 {
		events[a], events[b] = events[b], events[a]
	}
	return events
}

// lease is that of the instance which made a scaling.
func lease(event api.ScalingEvent) float64 {
	index, _ := event.Meta["freshet.lease"].(float64)
	return index
}

// awaitActing waits until one of the instances acts, and returns which.
func (r *rig) awaitActing(t *testing.T, all ...*instance) *instance {
	t.Helper()
	var found *instance
	eventually.True(t, "one acts", func() bool {
		for _, i := range all {
			if r.acting(t, i) {
				found = i
			}
		}
		return found != nil
	})
	return found
}

// metrics are the instance's; none while it does not answer.
func (r *rig) metrics(t *testing.T, i *instance) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	return string(data)
}
