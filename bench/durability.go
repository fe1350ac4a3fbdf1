package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	durableTurns = 200
	durableCount = 4096
)

// durability times the queue's part of a call with each setting that says what it survives: one server or three, and whether each
// message is written through to the disk.
func durability(ctx context.Context, s *system, f *floors, r *report) error {
	var usual durable
	for _, setting := range []struct {
		name     string
		replicas int
		always   bool
	}{{"r1", 1, false}, {"r1_sync_always", 1, true}, {"r3", 3, false}, {"r3_sync_always", 3, true}} {
		dir := filepath.Join(s.work, "durable-"+setting.name)
		got, err := f.durable(ctx, dir, setting.replicas, setting.always)
		if err != nil {
			return fmt.Errorf("%s: %w", setting.name, err)
		}
		if usual.rate == 0 {
			usual = got
		}
		r.add(times("durable_"+setting.name, got.took, usual.took.at(0.5)))
		r.add(over(row{Name: "durable_" + setting.name + "_rate_64", Unit: "calls/s", P50: got.rate, N: durableCount}, usual.rate))
	}
	return nil
}

// durable is what a setting costs.
type durable struct {
	took samples
	rate float64
}

func (f *floors) durable(ctx context.Context, dir string, replicas int, always bool) (got durable, err error) {
	urls, err := f.child(floorCluster, dir, strconv.Itoa(replicas), strconv.FormatBool(always))
	if err != nil {
		return got, err
	}
	q, err := openDurable(ctx, urls, replicas)
	if err != nil {
		return got, err
	}
	defer q.close()
	if _, err := q.roundTrips(ctx, durableTurns/4); err != nil {
		return got, err
	}
	if got.took, err = q.roundTrips(ctx, durableTurns); err != nil {
		return got, err
	}
	got.rate, err = q.rate(ctx, 64, durableCount)
	return got, err
}

// openDurable is openNATS with as many replicas, and a worker that stores each answer before it gives it, as freshet's do.
func openDurable(ctx context.Context, urls string, replicas int) (*natsFloor, error) {
	f := &natsFloor{}
	var err error
	if f.caller, err = nats.Connect(urls); err != nil {
		return nil, err
	}
	if f.worker, err = nats.Connect(urls); err != nil {
		return nil, err
	}
	if f.js, err = jetstream.New(f.caller); err != nil {
		return nil, err
	}
	pulls, err := jetstream.New(f.worker, jetstream.WithPublishAsyncMaxPending(rateCount))
	if err != nil {
		return nil, err
	}
	err = until(ctx, "the servers have a leader", func() (bool, error) {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := f.js.CreateOrUpdateStream(once, jetstream.StreamConfig{Name: "RESULTS", Subjects: []string{"floor.results"}, Replicas: replicas, MaxMsgs: 10_000})
		return err == nil, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	calls := jetstream.StreamConfig{Name: floorStream, Subjects: []string{floorSubject}, Retention: jetstream.WorkQueuePolicy, Replicas: replicas}
	if _, err := f.js.CreateStream(ctx, calls); err != nil {
		return nil, err
	}
	consumer, err := pulls.CreateConsumer(ctx, floorStream, jetstream.ConsumerConfig{Durable: "floor", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1000})
	if err != nil {
		return nil, err
	}
	f.pulling, err = consumer.Consume(func(msg jetstream.Msg) {
		stored, err := pulls.PublishAsync("floor.results", msg.Data())
		if err != nil {
			return // its caller notices
		}
		go func() { // ends with the server's word, or with the connection
			select {
			case <-stored.Ok():
				_ = f.worker.Publish(msg.Headers().Get(replyHeader), msg.Data()) // a lost answer is noticed by its caller
				_ = msg.Ack()
			case <-ctx.Done():
			}
		}()
	}, jetstream.PullMaxMessages(64))
	if err != nil {
		return nil, err
	}
	f.single, err = f.newCaller()
	return f, err
}

// serveCluster runs so many servers that hold together, with JetStream's default of when it writes through or at once.
func serveCluster(ctx context.Context, dir, count, always string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ports, err := freePorts(n)
	if err != nil {
		return err
	}
	var routes []*url.URL
	for _, port := range ports {
		routes = append(routes, &url.URL{Scheme: "nats", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))})
	}
	var servers []*server.Server
	var urls []string
	for i, port := range ports {
		options := &server.Options{
			ServerName: "floor-" + strconv.Itoa(i), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true,
			StoreDir: filepath.Join(dir, strconv.Itoa(i)), SyncAlways: always == "true", NoSigs: true, NoLog: true,
		}
		if n > 1 {
			options.Cluster = server.ClusterOpts{Name: "floor", Host: "127.0.0.1", Port: port}
			options.Routes = routes
		}
		s, err := server.NewServer(options)
		if err != nil {
			return err
		}
		s.Start()
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(10 * time.Second) {
			return errors.New("NATS does not get ready")
		}
		urls = append(urls, s.ClientURL())
	}
	fmt.Println(strings.Join(urls, ","))
	<-ctx.Done()
	for _, s := range servers {
		s.Shutdown()
	}
	for _, s := range servers {
		s.WaitForShutdown()
	}
	return nil
}

// freePorts are ports that nobody listens on.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = listener.Close() }() // held until all are found
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
