package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var function = queue.Function{Namespace: "default", App: "app", Name: "fn"}

// startNATS starts a real server on the port (0 takes any) and directory.
func startNATS(t *testing.T, port int, dir string) *server.Server {
	t.Helper()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, MaxPayload: queue.MaxMessage, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("nats does not start")
	}
	return s
}

// rig is a server with freshet's streams, and a connection to it.
type rig struct {
	server *server.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	dir    string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir()}
	r.server = startNATS(t, 0, r.dir)
	nc, err := nats.Connect(r.server.ClientURL(), nats.SetCustomDialer(queue.Dialer{}), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	r.nc = nc
	if r.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	if err := queue.Setup(t.Context(), r.js, queue.Settings{}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) publish(t *testing.T, count int) []string {
	t.Helper()
	ids := make([]string, count)
	for i := range ids {
		ids[i] = ulid.Make().String()
		msg, err := queue.Envelope{Function: function, Call: ids[i], Published: time.Now(), Body: []byte(ids[i])}.Message()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func (r *rig) open(t *testing.T, slots int) *queue.Puller {
	t.Helper()
	p, err := queue.OpenPuller(t.Context(), r.nc, function, slots, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func next(t *testing.T, p *queue.Puller) *queue.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d, err := p.Next(ctx)
	if err != nil {
		t.Fatalf("next call: %v", err)
	}
	return d
}

func (r *rig) depth(t *testing.T) int64 {
	t.Helper()
	depth, err := queue.Depth(t.Context(), r.js, function)
	if err != nil {
		t.Fatal(err)
	}
	return depth
}

// eventually waits for a condition.
func TestPullerTakesNoMoreThanItsSlots(t *testing.T) {
	r := newRig(t)
	r.publish(t, 10)
	p := r.open(t, 3)
	held := []*queue.Delivery{next(t, p), next(t, p), next(t, p)}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if d, err := p.Next(short); err == nil {
		t.Fatalf("a fourth call, %s, with three slots", d.Call)
	}
	other := r.open(t, 10)
	for range 7 { // what the first does not hold is there for others
		held = append(held, next(t, other))
	}
	seen := make(map[string]bool)
	for _, d := range held {
		if seen[d.Call] || d.Attempt != 1 {
			t.Errorf("call %s came twice, or as attempt %d", d.Call, d.Attempt)
		}
		seen[d.Call] = true
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventually.True(t, "the queue is empty", func() bool { return r.depth(t) == 0 })
}

func TestAckPullsTheNextCall(t *testing.T) {
	r := newRig(t)
	r.publish(t, 500)
	p := r.open(t, 4)
	for range 500 {
		if err := next(t, p).Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventually.True(t, "the queue is empty", func() bool { return r.depth(t) == 0 })
	r.publish(t, 1) // an idle puller still pulls
	next(t, p)
}

func TestReturnedCallComesAgain(t *testing.T) {
	r := newRig(t)
	r.publish(t, 1)
	p := r.open(t, 1)
	if err := next(t, p).Return(0); err != nil {
		t.Fatal(err)
	}
	if d := next(t, p); d.Attempt != 2 {
		t.Fatalf("attempt %d, want 2", d.Attempt)
	}
}

func TestHeldCallIsKeptFromOthers(t *testing.T) {
	r := newRig(t)
	r.publish(t, 1)
	p := r.open(t, 1)
	d := next(t, p)
	other := r.open(t, 1)
	longer, cancel := context.WithTimeout(t.Context(), queue.AckWait+time.Second)
	defer cancel()
	if _, err := other.Next(longer); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a held call was delivered again: %v", err)
	}
	if err := d.Ack(); err != nil {
		t.Fatal(err)
	}
}

func TestPullerSurvivesTheServer(t *testing.T) {
	r := newRig(t)
	p := r.open(t, 2)
	port := r.server.Addr().String()
	r.server.Shutdown()
	r.server.WaitForShutdown()
	var number int
	if _, err := fmt.Sscanf(port, "127.0.0.1:%d", &number); err != nil {
		t.Fatal(err)
	}
	startNATS(t, number, r.dir)
	eventually.True(t, "reconnected", r.nc.IsConnected)
	r.publish(t, 2)
	next(t, p)
	next(t, p)
}

func TestPullerRepairsADeletedConsumer(t *testing.T) {
	r := newRig(t)
	p := r.open(t, 1)
	if err := r.js.DeleteConsumer(t.Context(), function.CallsStream(), function.Consumer()); err != nil {
		t.Fatal(err)
	}
	r.publish(t, 1)
	next(t, p)
}

func TestDrainWaitsForHeldCallsAndTakesNoMore(t *testing.T) {
	r := newRig(t)
	r.publish(t, 1)
	p := r.open(t, 2)
	d := next(t, p)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("drained with a call running: %v", err)
	}
	r.publish(t, 1)
	if err := d.Ack(); err != nil {
		t.Fatal(err)
	}
	if err := p.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := r.open(t, 1)
	next(t, other) // the second call went to nobody else
}

func TestFirstResultWins(t *testing.T) {
	r := newRig(t)
	call := ulid.Make().String()
	if _, err := queue.LoadResult(t.Context(), r.js, call); !errors.Is(err, queue.ErrNoResult) {
		t.Fatalf("before any result: %v", err)
	}
	store, err := queue.OpenStore(r.nc, "alloc-1")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	first, err := store.Put(t.Context(), queue.Result{Call: call, Worker: "alloc-1", Attempt: 1, Body: []byte("one"), Keep: time.Hour}, "")
	if err != nil || string(first.Body) != "one" {
		t.Fatalf("first: %q, %v", first.Body, err)
	}
	second, err := store.Put(t.Context(), queue.Result{Call: call, Worker: "alloc-1", Attempt: 2, Error: &wire.Error{Kind: wire.KindUser}}, "")
	if err != nil || string(second.Body) != "one" || second.Error != nil || second.Attempt != 1 {
		t.Fatalf("second: %+v, %v; want the first one", second, err)
	}
}

// TestCallEndedTwiceAtOnceHasOneResult: after an outage a worker may run a call again whose first result it is still storing.
func TestCallEndedTwiceAtOnceHasOneResult(t *testing.T) {
	r := newRig(t)
	store, err := queue.OpenStore(r.nc, "alloc-1")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	call := ulid.Make().String()
	stands := make(chan string, 8)
	for i := range cap(stands) {
		go func() {
			result, err := store.Put(t.Context(), queue.Result{Call: call, Worker: "alloc-1", Attempt: i + 1, Body: []byte{byte('a' + i)}}, "")
			if err != nil {
				t.Error(err)
			}
			stands <- string(result.Body)
		}()
	}
	first := <-stands
	for range cap(stands) - 1 {
		if other := <-stands; other != first {
			t.Errorf("results %q and %q both stand", first, other)
		}
	}
}

func TestSuspectsAreMarked(t *testing.T) {
	r := newRig(t)
	if marked, err := queue.Suspect(t.Context(), r.js, "one"); err != nil || marked {
		t.Errorf("nobody marked it: %v, %v", marked, err)
	}
	if err := queue.MarkSuspect(t.Context(), r.js, "one"); err != nil {
		t.Fatal(err)
	}
	if marked, err := queue.Suspect(t.Context(), r.js, "one"); err != nil || !marked {
		t.Errorf("it was marked: %v, %v", marked, err)
	}
}

// TestDroppedDeliveryIsDeliveredAgain: the server was told nothing.
// A puller looks every second whether it has to pull anew. While it is busy it must not mistake what is on its way for missing.
func TestBusyPullerMissesNoDelivery(t *testing.T) {
	const slots = 64
	r := newRig(t)
	p := r.open(t, slots)
	publisher, err := jetstream.New(r.nc, jetstream.WithPublishAsyncMaxPending(4*slots))
	if err != nil {
		t.Fatal(err)
	}
	busy, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var work errgroup.Group
	work.Go(func() error {
		for busy.Err() == nil {
			msg, err := queue.Envelope{Function: function, Call: ulid.Make().String(), Published: time.Now()}.Message()
			if err != nil {
				return err
			}
			if _, err := publisher.PublishMsgAsync(msg, jetstream.WithStallWait(time.Minute)); err != nil {
				return err
			}
		}
		return nil
	})
	for range slots {
		work.Go(func() error {
			for {
				d, err := p.Next(busy)
				if err != nil {
					return err
				}
				if d.Attempt != 1 {
					return fmt.Errorf("a call was delivered %d times: a delivery got lost", d.Attempt)
				}
				if err := d.Ack(); err != nil {
					return err
				}
			}
		})
	}
	if err := work.Wait(); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestDroppedDeliveryIsDeliveredAgain(t *testing.T) {
	r := newRig(t)
	p := r.open(t, 1)
	r.publish(t, 1)
	first := next(t, p)
	first.Drop()
	if p.Busy() != 0 {
		t.Error("it still holds its slot")
	}
	if again := next(t, p); again.Call != first.Call || again.Attempt != 2 {
		t.Errorf("got attempt %d of %s", again.Attempt, again.Call)
	}
}

func TestPublishingTwiceQueuesOnce(t *testing.T) {
	r := newRig(t)
	msg, err := queue.Envelope{Function: function, Call: ulid.Make().String(), Published: time.Now()}.Message()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	if depth := r.depth(t); depth != 1 {
		t.Fatalf("depth %d, want 1", depth)
	}
	depths, err := queue.Depths(t.Context(), r.js)
	if err != nil || len(depths) != 1 || depths[function] != 1 {
		t.Fatalf("depths %v, %v", depths, err)
	}
	other := queue.Function{Namespace: "default", App: "app", Name: "other"}
	depths, err = queue.DepthsOf(t.Context(), r.js, slices.Values([]queue.Function{other, function, function}))
	if err != nil || len(depths) != 1 || depths[function] != 1 {
		t.Fatalf("depths %v, %v", depths, err)
	}
	if depths, err = queue.DepthsOf(t.Context(), r.js, slices.Values([]queue.Function{other})); err != nil || len(depths) != 0 {
		t.Fatalf("depths %v, %v", depths, err)
	}
}

func TestSetupTwiceChangesNothing(t *testing.T) {
	r := newRig(t)
	r.publish(t, 3)
	if err := queue.Setup(t.Context(), r.js, queue.Settings{}); err != nil {
		t.Fatal(err)
	}
	if depth := r.depth(t); depth != 3 {
		t.Fatalf("depth %d, want 3", depth)
	}
}
