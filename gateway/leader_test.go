package gateway_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
)

// startNATSCluster runs three real servers that keep everything three times, by their names.
func startNATSCluster(t *testing.T) map[string]*server.Server {
	t.Helper()
	var routes []*url.URL
	var ports []int
	for range 3 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address, _ := listener.Addr().(*net.TCPAddr)
		ports = append(ports, address.Port)
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: address.String()})
		_ = listener.Close()
	}
	servers := make(map[string]*server.Server)
	for i, port := range ports {
		name := fmt.Sprint("n", i)
		s, err := server.NewServer(&server.Options{
			ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), MaxPayload: queue.MaxMessage,
			NoLog: true, NoSigs: true, Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}, Routes: routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		servers[name] = s
	}
	for name, s := range servers {
		eventually.True(t, "server "+name+" knows the others", func() bool { return s.Addr() != nil && s.NumRoutes() > 0 && s.JetStreamIsCurrent() })
	}
	return servers
}

// TestEachTickMakesOneCallAcrossALeaderChange: the server that leads the schedules and the one that leads the calls hand over, and then
// the first of them is shut down.
func TestEachTickMakesOneCallAcrossALeaderChange(t *testing.T) {
	servers := startNATSCluster(t)
	address := servers["n0"].ClientURL()
	replicated := func(c *gateway.Config) { c.Streams.Replicas = 3 }
	r := newRig(t, address, functions(echo()), replicated)
	other := newRig(t, servers["n1"].ClientURL(), functions(echo()), replicated)
	r.up(t)
	other.up(t)
	l := &ledger{runs: make(map[string]int)}
	startWorker(t, servers["n2"].ClientURL(), 4, l.run)
	made := r.schedule(t, http.MethodPut, scheduleEcho, `{"every":"1s","missed":"all"}`, http.StatusOK)
	ticks := func(more int) {
		before, _ := l.counts()
		eventually.True(t, "ticks go on", func() bool { calls, _ := l.counts(); return calls >= before+more })
	}
	ticks(2)
	leader := func() string {
		stream, err := other.js(t).Stream(t.Context(), "KV_"+queue.SchedulesBucket)
		if err != nil || stream.CachedInfo().Cluster == nil {
			return ""
		}
		return stream.CachedInfo().Cluster.Leader
	}
	first := leader()
	if _, err := other.nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.KV_"+queue.SchedulesBucket, nil, patience); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "another server leads", func() bool { now := leader(); return now != "" && now != first })
	ticks(2)
	gone := leader()
	servers[gone].Shutdown()
	eventually.True(t, "a third one leads", func() bool { now := leader(); return now != "" && now != gone })
	ticks(3)
	counted := func(state string, overtaken ...int) {
		eventually.True(t, "every tick made its call, "+state, func() bool {
			var list []scheduled
			a := r.do(t, http.MethodGet, "/v1/schedules?function=demo.echo", nil, nil)
			if json.Unmarshal(a.body, &list) != nil || len(list) != 1 || list[0].Paused != (state == "paused") {
				return false
			}
			calls, _ := l.counts()
			return slices.Contains(overtaken, calls-int(list[0].Seen.Sub(made.Seen)/time.Second))
		})
	}
	counted("running", 0)
	eventually.True(t, "it is paused", func() bool {
		return r.do(t, http.MethodPost, scheduleEcho+"/pause", nil, nil).status == http.StatusOK
	})
	// A pause may overtake one tick: its call is made, and written down when the schedule goes on, without another call.
	counted("paused", 0, 1)
}
