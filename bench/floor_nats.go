package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func serveNATS(ctx context.Context, dir string) error {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("NATS does not get ready")
	}
	fmt.Println(s.ClientURL())
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// natsFloor is a work queue with a worker that answers at once, as short as nats.go makes it.
type natsFloor struct {
	caller, worker *nats.Conn
	js             jetstream.JetStream
	pulling        jetstream.ConsumeContext
	single         *floorCaller
}

const (
	floorStream  = "FLOOR"
	floorSubject = "floor.calls"
	replyHeader  = "Reply-To"
)

func openNATS(ctx context.Context, url string) (*natsFloor, error) {
	f := &natsFloor{}
	var err error
	if f.caller, err = nats.Connect(url); err != nil {
		return nil, err
	}
	if f.worker, err = nats.Connect(url); err != nil {
		return nil, err
	}
	if f.js, err = jetstream.New(f.caller); err != nil {
		return nil, err
	}
	config := jetstream.StreamConfig{Name: floorStream, Subjects: []string{floorSubject}, Retention: jetstream.WorkQueuePolicy}
	if _, err := f.js.CreateStream(ctx, config); err != nil {
		return nil, err
	}
	pulls, err := jetstream.New(f.worker)
	if err != nil {
		return nil, err
	}
	consumer, err := pulls.CreateConsumer(ctx, floorStream, jetstream.ConsumerConfig{Durable: "floor", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1000})
	if err != nil {
		return nil, err
	}
	f.pulling, err = consumer.Consume(func(msg jetstream.Msg) {
		_ = f.worker.Publish(msg.Headers().Get(replyHeader), msg.Data()) // a lost answer is noticed by its caller
		_ = msg.Ack()
	}, jetstream.PullMaxMessages(64))
	if err != nil {
		return nil, err
	}
	f.single, err = f.newCaller()
	return f, err
}

func (f *natsFloor) close() {
	f.pulling.Stop()
	f.worker.Close()
	f.caller.Close()
}

// floorCaller publishes and waits for answers on a subject of its own.
type floorCaller struct {
	floor   *natsFloor
	replies *nats.Subscription
	msg     *nats.Msg
}

func (f *natsFloor) newCaller() (*floorCaller, error) {
	inbox := f.caller.NewInbox()
	replies, err := f.caller.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	return &floorCaller{floor: f, replies: replies, msg: &nats.Msg{Subject: floorSubject, Data: input, Header: nats.Header{replyHeader: {inbox}}}}, nil
}

func (c *floorCaller) call(ctx context.Context) error {
	if _, err := c.floor.js.PublishMsg(ctx, c.msg); err != nil {
		return err
	}
	_, err := c.replies.NextMsgWithContext(ctx)
	return err
}

func (f *natsFloor) roundTrips(ctx context.Context, n int) (samples, error) {
	s := make(samples, 0, n)
	for range n {
		began := time.Now()
		if err := f.single.call(ctx); err != nil {
			return s, err
		}
		s = append(s, time.Since(began))
	}
	return s, nil
}

// rate is the calls a second with some in flight.
func (f *natsFloor) rate(ctx context.Context, inFlight, n int) (float64, error) {
	callers := make([]*floorCaller, inFlight)
	for i := range callers {
		var err error
		if callers[i], err = f.newCaller(); err != nil {
			return 0, err
		}
	}
	return inParallel(inFlight, n, func(i int) error { return callers[i].call(ctx) })
}
