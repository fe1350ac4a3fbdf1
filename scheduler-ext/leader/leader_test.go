package leader_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/leader"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

func startNATS(t *testing.T) *server.Server {
	t.Helper()
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
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := queue.Setup(t.Context(), js, queue.Settings{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// wire is a connection to NATS that can be cut, as by a kill -9 of the one who holds it, or held up.
type wire struct {
	listener net.Listener
	running  sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener}
	w.running.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				return
			}
			w.mu.Lock()
			w.conns = append(w.conns, in, out)
			w.mu.Unlock()
			w.running.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			w.running.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
	t.Cleanup(w.cut)
	return w
}

func (w *wire) cut() {
	_ = w.listener.Close()
	w.mu.Lock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}

func elect(t *testing.T, url, name string) *leader.Elector {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	e, err := leader.New(leader.Config{NATS: nc, Name: name, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

func acts(e *leader.Elector) bool { _, ok := e.Lease(); return ok }

func TestACleanStopIsFollowedAtOnce(t *testing.T) {
	s := startNATS(t)
	first := elect(t, s.ClientURL(), "first")
	eventually.True(t, "the first acts", func() bool { return acts(first) })
	before, _ := first.Lease()
	second := elect(t, s.ClientURL(), "second")
	defer second.Close()
	began := time.Now()
	first.Close()
	eventually.True(t, "the second acts", func() bool { return acts(second) })
	if took := time.Since(began); took > time.Second {
		t.Errorf("the take-over took %s", took)
	}
	if acts(first) {
		t.Error("both act")
	}
	if after, _ := second.Lease(); after.Index <= before.Index {
		t.Errorf("lease %d follows %d", after.Index, before.Index)
	}
}

func TestALostHolderStopsBeforeTheNextActs(t *testing.T) {
	s := startNATS(t)
	w := newWire(t, s.Addr().String())
	first := elect(t, fmt.Sprintf("nats://%s", w.listener.Addr()), "first")
	defer first.Close()
	eventually.True(t, "the first acts", func() bool { return acts(first) })
	second := elect(t, s.ClientURL(), "second")
	defer second.Close()
	began := time.Now()
	w.cut()
	eventually.True(t, "the second acts", func() bool {
		one, two := acts(first), acts(second) // in this order: the first must not act when the second does
		if one && two {
			t.Fatal("both act")
		}
		return two
	})
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the take-over took %s", took)
	}
}

func TestOneOfManyActs(t *testing.T) {
	s := startNATS(t)
	var all []*leader.Elector
	for i := range 5 {
		all = append(all, elect(t, s.ClientURL(), fmt.Sprint(i)))
	}
	count := func() int {
		n := 0
		for _, e := range all {
			if acts(e) {
				n++
			}
		}
		return n
	}
	deadline := time.Now().Add(2 * queue.LeaseTTL)
	eventually.True(t, "one acts for longer than a lease", func() bool {
		if n := count(); n > 1 {
			t.Fatalf("%d act", n)
		}
		return time.Now().After(deadline) && count() == 1
	})
	for _, e := range all {
		e.Close()
	}
}
