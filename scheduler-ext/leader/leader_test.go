package leader_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/freshet-dev/freshet/internal/consultest"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/leader"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// elector is what both kinds are.
type elector interface {
	Open(context.Context) error
	Close()
	Lease() (leader.Lease, bool)
	Changed() <-chan struct{}
}

// kind is one of the places that a lock can be in.
type kind struct {
	name string
	// start runs it and returns its host and port.
	start func(t *testing.T) string
	// make makes an elector that reaches it there.
	make func(t *testing.T, address, name string) elector
}

// kinds all keep the same promises.
func kinds() []kind {
	return []kind{
		{"nats", startNATS, func(t *testing.T, address, name string) elector {
			t.Helper()
			nc, err := nats.Connect("nats://"+address, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			e, err := leader.New(leader.Config{NATS: nc, Name: name, Log: zerolog.Nop()})
			if err != nil {
				t.Fatal(err)
			}
			return e
		}},
		{"consul", func(t *testing.T) string { t.Helper(); return consultest.Start(t) }, func(t *testing.T, address, name string) elector {
			t.Helper()
			return leader.NewConsul(consultest.Connect(t, address), name, zerolog.Nop())
		}},
	}
}

// TestElectors: one server of each kind for all, which they leave as they found it; both at once, because they mostly wait.
func TestElectors(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			address := k.start(t)
			for name, test := range map[string]func(t *testing.T, address string, elect func(address, name string) elector){
				"a clean stop is followed at once":         aCleanStopIsFollowedAtOnce,
				"a lost holder stops before the next acts": aLostHolderStopsBeforeTheNextActs,
				"one of many acts":                         oneOfManyActs,
			} {
				t.Run(name, func(t *testing.T) {
					test(t, address, func(address, name string) elector {
						e := k.make(t, address, name)
						if err := e.Open(t.Context()); err != nil {
							t.Fatal(err)
						}
						return e
					})
				})
			}
			if k.name == "consul" {
				t.Run("a broken session is followed by a pause", func(t *testing.T) { aBrokenSessionIsFollowedByAPause(t, address) })
			}
		})
	}
}

func startNATS(t *testing.T) string {
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
	return s.Addr().String()
}

// wire is a connection that can be cut, as by a kill -9 of the one who holds it.
type wire struct {
	listener net.Listener
	running  sync.WaitGroup
	mu       sync.Mutex
	gone     bool
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
			w.carry(in, out)
		}
	})
	t.Cleanup(w.cut)
	return w
}

// carry joins two connections until one ends or the wire is cut.
func (w *wire) carry(in, out net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		_, _ = in.Close(), out.Close()
		return
	}
	w.conns = append(w.conns, in, out)
	w.running.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
	w.running.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
}

func (w *wire) cut() {
	_ = w.listener.Close()
	w.mu.Lock()
	w.gone = true
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}

func acts(e elector) bool { _, ok := e.Lease(); return ok }

func aCleanStopIsFollowedAtOnce(t *testing.T, address string, elect func(address, name string) elector) {
	t.Helper()
	first := elect(address, "first")
	eventually.True(t, "the first acts", func() bool { return acts(first) })
	before, _ := first.Lease()
	second := elect(address, "second")
	defer second.Close()
	began := time.Now()
	first.Close()
	if acts(first) {
		t.Error("it acts after it was closed")
	}
	eventually.True(t, "the second acts", func() bool { return acts(second) })
	took := time.Since(began)
	t.Logf("the take-over took %s", took)
	if took > time.Second {
		t.Errorf("the take-over took %s", took)
	}
	if after, _ := second.Lease(); after.Index <= before.Index {
		t.Errorf("lease %d follows %d", after.Index, before.Index)
	}
}

func aLostHolderStopsBeforeTheNextActs(t *testing.T, address string, elect func(address, name string) elector) {
	t.Helper()
	w := newWire(t, address)
	first := elect(w.listener.Addr().String(), "first")
	defer first.Close()
	eventually.True(t, "the first acts", func() bool { return acts(first) })
	before, _ := first.Lease()
	second := elect(address, "second")
	defer second.Close()
	began := time.Now()
	w.cut()
	eventually.True(t, "the second acts", func() bool {
		two, one := acts(second), acts(first) // in this order: who acted before the second did is no wrong
		if one && two {
			t.Fatal("both act")
		}
		return two
	})
	took := time.Since(began)
	t.Logf("the take-over took %s", took)
	if took > 3*time.Second {
		t.Errorf("the take-over took %s", took)
	}
	if after, _ := second.Lease(); after.Index <= before.Index {
		t.Errorf("lease %d follows %d", after.Index, before.Index)
	}
}

func oneOfManyActs(t *testing.T, address string, elect func(address, name string) elector) {
	t.Helper()
	var all []elector
	for i := range 5 {
		all = append(all, elect(address, fmt.Sprint(i)))
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

// aBrokenSessionIsFollowedByAPause: Consul ends a session at once when gossip says that its node failed, while its holder
// still believes in it. Nobody else acts before the holder stopped.
func aBrokenSessionIsFollowedByAPause(t *testing.T, address string) {
	t.Helper()
	client := consultest.Connect(t, address)
	open := func(name string) *leader.Consul {
		e := leader.NewConsul(client, name, zerolog.Nop())
		if err := e.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		return e
	}
	first := open("first")
	defer first.Close()
	eventually.True(t, "the first acts", func() bool { return acts(first) })
	before, _ := first.Lease()
	second := open("second")
	defer second.Close()
	var sessions []*api.SessionEntry
	eventually.True(t, "both have sessions", func() bool {
		sessions, _, _ = client.Session().List(nil)
		return len(sessions) == 2
	})
	for _, session := range sessions {
		if session.Name == "freshet-autoscaler first" {
			if _, err := client.Session().Destroy(session.ID, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	eventually.True(t, "one acts under a new lease", func() bool {
		two, one := acts(second), acts(first)
		if one && two {
			t.Fatal("both act")
		}
		lease, acting := second.Lease()
		if !two {
			lease, acting = first.Lease()
		}
		return acting && lease.Index > before.Index
	})
	took := time.Since(began)
	t.Logf("the next lease came after %s", took)
	if took < 500*time.Millisecond || took > 3*time.Second {
		t.Errorf("the next lease came after %s, want the pause and no more", took)
	}
}
