package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// Timing of deliveries.
const (
	// AckWait is how long the server waits for a word about a delivered call before it gives it to another worker: a
	// dead node is noticed this soon. A held call is extended every AckWait/4.
	AckWait = 4 * time.Second
	// consumerIdle is how long the server keeps the consumer of a function without workers.
	consumerIdle = time.Hour
	// pullExpires is how long one pull waits at the server. An idle worker renews its pulls this often.
	pullExpires = 30 * time.Second
	// checkEvery is how often the consumer is looked for: a pull that reaches the server just as its consumer goes is dropped
	// without a word, and would be waited for until it expires.
	checkEvery = 8 * time.Second
	// maxWaiting is how many pulls may wait at a function's consumer, from all workers: NATS's default of 512 is
	// reached by eight workers of 64 slots.
	maxWaiting = 65536
)

// ErrClosed is returned by Next when the puller is closed or drained.
var ErrClosed = errors.New("puller closed")

// Puller takes calls of one function from its queue, never more than there are free slots: nats.go's own Consume
// buffers ahead, and a busy worker then holds calls that others could run (nats.go#1929).
type Puller struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	log      zerolog.Logger
	function Function
	slots    int
	most     int // deliveries that all of the function's workers together may hold, -1 for any number

	cancels cancels
	arrived chan *Delivery // capacity slots: a delivery always fits, so the subscription never blocks
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu       sync.Mutex
	sub      *nats.Subscription
	inbox    string                 // this epoch's reply subject
	asked    int                    // how many messages the server may still send
	pulls    map[int64]int          // how many were asked for, by the second in which the pull expires
	held     map[*Delivery]struct{} // deliveries not yet settled
	lent     int                    // slots that are lent
	stopped  bool                   // before Start and after Stop
	resting  bool                   // between Pause and Resume
	parked   []*Delivery            // those of them that wait for a slot which is lent
	released chan struct{}          // closed and replaced whenever a slot becomes free
	asking   bool                   // a pull is about to be sent
}

// PullerOption sets something of a puller.
type PullerOption func(*Puller)

// MaxRunning bounds the calls that all of the function's workers hold together, those that wait for their next attempt among
// them. Default: no bound. Every worker of a function must say the same.
func MaxRunning(calls int) PullerOption {
	return func(p *Puller) {
		if calls > 0 {
			p.most = calls
		}
	}
}

// OpenPuller makes the function's consumer where it is missing and listens for deliveries; it pulls none before Start. Close
// it.
func OpenPuller(
	ctx context.Context, nc *nats.Conn, function Function, slots int, log zerolog.Logger, options ...PullerOption,
) (*Puller, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	p := &Puller{
		nc: nc, js: js, log: log, function: function, slots: slots,
		arrived:  make(chan *Delivery, slots),
		pulls:    make(map[int64]int),
		held:     make(map[*Delivery]struct{}),
		released: make(chan struct{}),
		stopped:  true,
		most:     -1,
	}
	for _, option := range options {
		option(p)
	}
	if err := p.open(ctx); err != nil {
		p.cancels.close()
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	p.done.Go(func() { p.maintain(run) })
	return p, nil
}

func (p *Puller) open(ctx context.Context) error {
	if err := p.cancels.open(p.nc, p.function, p.cancelHeld); err != nil {
		return err
	}
	if err := p.ensureConsumer(ctx); err != nil {
		return err
	}
	if err := p.cancels.load(ctx, p.nc, p.function, p.cancelHeld); err != nil {
		return err
	}
	return p.newEpoch()
}

// Start pulls for all slots.
func (p *Puller) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = false
	return p.askLocked()
}

func (p *Puller) ensureConsumer(ctx context.Context) error {
	_, err := p.js.CreateOrUpdateConsumer(ctx, p.function.CallsStream(), jetstream.ConsumerConfig{
		Durable:           p.function.Consumer(),
		FilterSubject:     p.function.CallsSubject(),
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           AckWait,
		MaxDeliver:        -1, // attempts are counted by the worker: the server's limit has lost messages (nats-server#7817)
		MaxAckPending:     p.most,
		MaxWaiting:        maxWaiting,
		InactiveThreshold: consumerIdle,
	})
	if err != nil {
		return fmt.Errorf("ensure consumer of %s: %w", p.function, err)
	}
	return nil
}

// newEpoch forgets all pulls and asks anew under a fresh reply subject. The server drops pulls whose reply subject has no
// subscriber, so the two epochs together never hold more than the slots for long.
func (p *Puller) newEpoch() error {
	inbox := p.nc.NewInbox()
	sub, err := p.nc.Subscribe(inbox, p.receive)
	if err != nil {
		return fmt.Errorf("subscribe to deliveries of %s: %w", p.function, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replaceLocked(sub, inbox)
	p.asked = 0
	clear(p.pulls)
	return p.askLocked()
}

// askLocked sends a pull for the free slots that no pull covers yet.
func (p *Puller) askLocked() error {
	free := freeSlots(p)
	if free <= 0 || p.stopped || p.resting {
		return nil
	}
	request := p.newPullLocked(free)
	subject := "$JS.API.CONSUMER.MSG.NEXT." + p.function.CallsStream() + "." + p.function.Consumer()
	if err := p.nc.PublishRequest(subject, p.inbox, request); err != nil {
		return fmt.Errorf("pull calls of %s: %w", p.function, err)
	}
	return nil
}

// askSoon pulls once those have run that are ready to: other calls that end now free their slots before. The lock is held.
func askSoon(p *Puller) {
	if p.asking {
		return
	}
	p.asking = true
	p.done.Go(func() {
		runtime.Gosched()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asking = false
		if err := p.askLocked(); err != nil {
			p.log.Warn().Err(err).Msg("pull the next calls")
		}
	})
}

// newPullLocked books a pull and returns its request (ADR-37 of NATS: batch, expires in ns).
func (p *Puller) newPullLocked(batch int) []byte {
	p.asked += batch
	p.pulls[time.Now().Add(pullExpires).Unix()] += batch
	return fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, batch, pullExpires)
}

// receive takes what the server answers to a pull: a call, or a status that ends the pull. A call does not say
// which pull it answers, so only their sum is kept.
func (p *Puller) receive(msg *nats.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	current := msg.Sub == p.sub
	if status := msg.Header.Get("Status"); status != "" && len(msg.Data) == 0 {
		if current && status != "100" {
			p.endPullLocked(msg, status)
		}
		return
	}
	if current {
		p.asked = max(p.asked-1, 0)
	}
	if p.stopped || len(p.held) >= p.slots {
		_ = msg.Nak() // no room: another worker has; on a closed connection AckWait says the same
		return
	}
	delivery, err := newDelivery(p, msg)
	if err != nil {
		p.log.Error().Err(err).Str("subject", msg.Subject).Msg("drop a message that is no call")
		_ = msg.Term()
		return
	}
	p.held[delivery] = struct{}{}
	if p.cancels.has(delivery.Call) {
		delivery.cancelLocked()
	}
	seat(p, delivery)
}

// cancelHeld tells those who run a cancelled call, or one of a cancelled batch.
func (p *Puller) cancelHeld(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range p.held {
		if d.Call == id || BatchOf(d.Call) == id {
			d.cancelLocked()
		}
	}
}

// endPullLocked takes the server's word that a pull ended: 408 when it expired, 409 or 503 when the consumer is gone. It says
// how many messages of it are not coming; when it does not, maintain begins anew.
func (p *Puller) endPullLocked(msg *nats.Msg, status string) {
	missing, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
	if err != nil {
		missing = p.asked
	}
	p.asked = max(p.asked-missing, 0)
	if status == "408" { // the usual end of an idle pull
		if err := p.askLocked(); err != nil {
			p.log.Warn().Err(err).Msg("renew pull")
		}
		return
	}
	p.log.Debug().Str("status", status).Str("description", msg.Header.Get("Description")).Msg("pull ended")
}

// maintain extends held calls and repairs what a lost connection, server or consumer took away.
func (p *Puller) maintain(ctx context.Context) {
	reconnected := p.nc.StatusChanged(nats.CONNECTED)
	defer p.nc.RemoveStatusListener(reconnected)
	ticker := time.NewTicker(AckWait / 4)
	defer ticker.Stop()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-reconnected:
			p.repair(ctx, true)
			p.reloadCancels(ctx)
		case <-ticker.C:
			p.extend()
			p.repair(ctx, false)
		case <-check.C:
			p.repair(ctx, p.orphaned(ctx))
		}
	}
}

// reloadCancels reads what was cancelled while there was no connection.
func (p *Puller) reloadCancels(ctx context.Context) {
	if err := p.cancels.load(ctx, p.nc, p.function, p.cancelHeld); err != nil && ctx.Err() == nil {
		p.log.Warn().Err(err).Msg("calls that were cancelled meanwhile may run")
	}
}

// orphaned tells that the consumer is gone while pulls wait for it.
func (p *Puller) orphaned(ctx context.Context) bool {
	p.mu.Lock()
	waits := !p.stopped && !p.resting && p.asked > 0
	p.mu.Unlock()
	if !waits {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, AckWait)
	defer cancel()
	_, err := p.js.Consumer(ctx, p.function.CallsStream(), p.function.Consumer())
	return errors.Is(err, jetstream.ErrConsumerNotFound)
}

func (p *Puller) extend() {
	p.mu.Lock()
	held := make([]*Delivery, 0, len(p.held))
	for d := range p.held {
		held = append(held, d)
	}
	late := overdue(p, time.Now().Add(-parkFor))
	p.mu.Unlock()
	for _, d := range held {
		_ = d.msg.InProgress() // fails when settled meanwhile, or without a connection
	}
	for _, d := range late {
		_ = d.Return(0) // as above
	}
}

// repair asks again where no pull is waiting though slots are free; lost says that those which wait are not answered.
func (p *Puller) repair(ctx context.Context, lost bool) {
	p.mu.Lock()
	p.forgetLocked(time.Now())
	missing := !p.stopped && !p.resting && !p.asking && freeSlots(p) > 0
	p.mu.Unlock()
	if !missing && !lost || !p.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, AckWait)
	defer cancel()
	err := p.ensureConsumer(ctx)
	if err == nil {
		err = p.newEpoch()
	}
	if err != nil && ctx.Err() == nil {
		p.log.Warn().Err(err).Msg("repair pulls")
	}
}

// forgetLocked drops the pulls that are over: one that was answered in full says nothing more, and one that was lost with a
// connection or a server brings nothing.
func (p *Puller) forgetLocked(now time.Time) {
	most := 0
	for expires, batch := range p.pulls {
		if now.Unix() > expires+int64(AckWait/time.Second) {
			delete(p.pulls, expires)
			continue
		}
		most += batch
	}
	p.asked = min(p.asked, most)
}

// Next waits for a call. It returns ErrClosed after Close or Drain, or the context's error.
func (p *Puller) Next(ctx context.Context) (*Delivery, error) {
	select {
	case d, ok := <-p.arrived:
		if !ok {
			return nil, ErrClosed
		}
		return d, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Busy is the number of slots in use.
func (p *Puller) Busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(len(p.held)+p.lent, p.slots)
}

// Stop ends the pulling; calls that arrive from now on, or have no slot yet, go back at once. Other held ones go on.
func (p *Puller) Stop() {
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return
	}
	p.stopped = true
	sub, waiting := p.sub, slices.Clone(p.parked)
	p.mu.Unlock()
	for _, d := range waiting {
		_ = d.Return(0) // without a connection AckWait says the same
	}
	_ = sub.Drain() // hands what is on its way to receive, which gives it back
}

// Drain stops the pulling and waits until every held call is settled and every lent slot is back, or the context ends.
func (p *Puller) Drain(ctx context.Context) error {
	p.Stop()
	for {
		p.mu.Lock()
		left, released := len(p.held)+p.lent, p.released
		p.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-released:
		case <-ctx.Done():
			return fmt.Errorf("drain %s with %d calls running: %w", p.function, left, ctx.Err())
		}
	}
}

// Close stops the pulling and gives held calls that nobody settles back to the queue.
func (p *Puller) Close() {
	p.Stop()
	p.cancel()
	p.done.Wait()
	p.cancels.close()
	p.mu.Lock()
	held := make([]*Delivery, 0, len(p.held))
	for d := range p.held {
		held = append(held, d)
	}
	p.mu.Unlock()
	for _, d := range held {
		_ = d.Return(0)
	}
}

// settleLocked frees the delivery's slot. It returns false when it was settled before.
func (p *Puller) settleLocked(d *Delivery) bool {
	if _, held := p.held[d]; !held {
		return false
	}
	delete(p.held, d)
	p.parked = slices.DeleteFunc(p.parked, func(waiting *Delivery) bool { return waiting == d })
	freed(p)
	return true
}
