package queue_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
)

// ports are free ones.
func ports(t *testing.T, count int) (all []int) {
	t.Helper()
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close() // held until all are chosen
		all = append(all, listener.Addr().(*net.TCPAddr).Port)
	}
	return all
}

// startMember starts a server of a NATS cluster, whose servers talk to each other by the ports.
func startMember(t *testing.T, number int, cluster []int) *server.Server {
	t.Helper()
	var routes []*url.URL
	for _, port := range cluster {
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	s, err := server.NewServer(&server.Options{
		ServerName: fmt.Sprint("n", number), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: cluster[number]}, Routes: routes,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	eventually.True(t, "the server listens", func() bool { return s.Addr() != nil })
	return s
}

func connectTo(t *testing.T, s *server.Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// TestClusterOfNATS sets the streams up while the cluster has no leader yet; what is then recorded through one server is found by another
// at once, whichever replica answers.
func TestClusterOfNATS(t *testing.T) {
	cluster := ports(t, 3)
	first := startMember(t, 0, cluster)
	_, js := connectTo(t, first)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second) // less than the minute that a gateway waits for one answer
	defer cancel()
	set := make(chan error, 1)
	go func() { set <- queue.Setup(ctx, js, queue.Settings{Replicas: 3}) }()
	servers := []*server.Server{first, startMember(t, 1, cluster), startMember(t, 2, cluster)}
	if err := <-set; err != nil {
		t.Fatal(err)
	}
	info, err := js.Stream(ctx, queue.BatchesStream)
	if err != nil || info.CachedInfo().Config.Replicas != 3 {
		t.Fatalf("%v, %v", info, err)
	}
	var readers sync.WaitGroup
	for i, s := range servers {
		nc, js := connectTo(t, s)
		readers.Go(func() {
			for n := range 150 {
				if err := recordAndFind(ctx, nc, js, n); err != nil {
					t.Errorf("by server %d: %v", i, err)
				}
			}
		})
	}
	readers.Wait()
}

// recordAndFind records a batch and a result, and looks for both.
func recordAndFind(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, n int) error {
	batch := queue.Batch{ID: queue.NewBatch(time.Now()), Function: function, Inputs: 1, Open: true, Spawned: time.Now()}
	call := queue.CallOfInput(batch.ID, 0)
	if err := batch.Save(ctx, js); err != nil {
		return err
	}
	if _, err := queue.LoadBatch(ctx, nc, call); err != nil {
		return fmt.Errorf("batch %d: %w", n, err)
	}
	batch.Inputs, batch.Open = 2, false
	if err := batch.Save(ctx, js); err != nil {
		return err
	}
	if found, err := queue.LoadBatch(ctx, nc, call); err != nil || found.Inputs != 2 || found.Open {
		return fmt.Errorf("batch %d is %+v: %w", n, found, err)
	}
	if _, err := queue.LoadResult(ctx, js, call); !errors.Is(err, queue.ErrNoResult) {
		return fmt.Errorf("result %d: %w", n, err)
	}
	if _, err := queue.End(ctx, js, queue.Result{Call: call, ContentType: "text/plain", Body: []byte("one")}); err != nil {
		return err
	}
	stands, err := queue.End(ctx, js, queue.Result{Call: call, ContentType: "text/plain", Body: []byte("two")})
	if err != nil || string(stands.Body) != "one" {
		return fmt.Errorf("result %d stands as %q: %w", n, stands.Body, err)
	}
	return nil
}
