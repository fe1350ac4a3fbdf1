package queue

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Delivery is one attempt of a call, given to this worker. Settle it once, by Ack or Return; until then it is kept from
// other workers.
type Delivery struct {
	Envelope
	// Attempt counts from 1, over all workers and messages.
	Attempt int
	// Received is when it arrived here.
	Received time.Time

	msg       *nats.Msg
	puller    *Puller
	cancelled chan struct{} // closed when the call is cancelled
}

func newDelivery(p *Puller, msg *nats.Msg) (*Delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("read delivery: %w", err)
	}
	subject := p.function.CallsSubject()
	envelope, err := ParseEnvelope(subject, msg.Header, msg.Data)
	if err != nil {
		return nil, err
	}
	return &Delivery{
		Envelope: envelope, Attempt: envelope.Attempt + int(meta.NumDelivered), Received: time.Now(),
		msg: msg, puller: p, cancelled: make(chan struct{}),
	}, nil
}

// Cancelled is closed when somebody cancels the call or its batch, as long as the delivery is not settled.
func (d *Delivery) Cancelled() <-chan struct{} {
	d.puller.mu.Lock()
	defer d.puller.mu.Unlock()
	return d.cancelled
}

// Follow hears of the cancellation that the older delivery of the same call heard of, and lets it hear what this one does.
func (d *Delivery) Follow(older *Delivery) {
	d.puller.mu.Lock()
	defer d.puller.mu.Unlock()
	select {
	case <-d.cancelled:
		older.cancelLocked()
	default:
	}
	d.cancelled = older.cancelled
}

// Try is which attempt of this message the delivery is, from 1: a replayed call has had others.
func (d *Delivery) Try() int { return d.Attempt - d.Envelope.Attempt }

func (d *Delivery) cancelLocked() {
	select {
	case <-d.cancelled:
	default:
		close(d.cancelled)
	}
}

// Ack takes the call off the queue and pulls the next one, in the same message where it was the only one. Its result must be stored before.
func (d *Delivery) Ack() error {
	p := d.puller
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.settleLocked(d) {
		return nil
	}
	switch {
	case p.stopped || p.resting || freeSlots(p) <= 0:
		return d.send([]byte("+ACK"), "")
	case len(p.held) > 0: // others end at the same time: one pull for all of them
		askSoon(p)
		return d.send([]byte("+ACK"), "")
	}
	return d.send(append([]byte("+NXT "), p.newPullLocked(1)...), p.inbox)
}

// Return gives the call back to the queue, for another attempt after the delay.
func (d *Delivery) Return(delay time.Duration) error {
	p := d.puller
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.settleLocked(d) {
		return nil
	}
	nak := []byte("-NAK")
	if delay > 0 {
		nak = fmt.Appendf(nak, ` {"delay":%d}`, delay)
	}
	return errors.Join(d.send(nak, ""), p.askLocked())
}

// Drop lets go of a delivery that a newer one of the same call replaces. The server is told nothing.
func (d *Delivery) Drop() {
	d.puller.mu.Lock()
	defer d.puller.mu.Unlock()
	d.puller.settleLocked(d)
}

func (d *Delivery) send(ack []byte, reply string) error {
	msg := &nats.Msg{Subject: d.msg.Reply, Reply: reply, Data: ack}
	if err := d.puller.nc.PublishMsg(msg); err != nil {
		return fmt.Errorf("settle call %s: %w", d.Call, err)
	}
	return nil
}
