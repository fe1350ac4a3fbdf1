package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/eventually"
)

// TestCallsWaitForALeader: calls of each way succeed while the function's stream loses its leader again and again, and while one of the
// servers ends.
func TestCallsWaitForALeader(t *testing.T) {
	servers := startNATSCluster(t)
	var addresses []string
	for _, s := range servers {
		addresses = append(addresses, s.ClientURL())
	}
	all := strings.Join(addresses, ",")
	r := newRig(t, all, functions(echo()), func(c *gateway.Config) { c.Streams.Replicas = 3 }).up(t)
	startWorker(t, all, 16, nil)
	if a := r.do(t, http.MethodPost, callEcho, []byte("1"), nil); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var answered atomic.Int64
	for _, path := range []string{callEcho, callEcho, spawnEcho, callEcho + "?redirect=true"} {
		callers.Go(func() {
			for ctx.Err() == nil {
				a, err := r.try(t.Context(), http.MethodPost, path, []byte("1"), http.Header{"Freshet-Timeout": {"60s"}})
				if err != nil || a.status/100 != 2 {
					t.Errorf("%s: %d %s, %v", path, a.status, a.body, err)
				}
				answered.Add(1)
			}
		})
	}
	leader := func() string {
		stream, err := r.js(t).Stream(t.Context(), echoKey().CallsStream())
		if err != nil || stream.CachedInfo().Cluster == nil {
			return ""
		}
		return stream.CachedInfo().Cluster.Leader
	}
	down := func() {
		if _, err := r.nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+echoKey().CallsStream(), nil, 5*time.Second); err != nil {
			t.Logf("step down: %v", err)
		}
		eventually.True(t, "there is a leader", func() bool { return leader() != "" })
		enough := answered.Load() + 20
		eventually.True(t, "calls are answered again", func() bool { return answered.Load() >= enough })
	}
	down()
	if s := servers[leader()]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
	enough := answered.Load() + 20
	eventually.True(t, "calls are answered by two servers", func() bool { return answered.Load() >= enough })
	stop()
	callers.Wait()
}
