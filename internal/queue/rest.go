package queue

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Rest asks one worker to pull no calls for a while: Nomad is going to stop exactly this one when the count is lowered, and so
// nobody's call is cut short. Calls that it has go on. It is core NATS, no promise: a rest ends by itself, and heartbeats tell
// what the worker made of it.
type Rest struct {
	// Lease is that of the autoscaler which asks. A worker takes no word of an older one than it heard.
	Lease uint64 `json:"lease"`
	// For is how long, from its arrival on; 0 ends the rest.
	For time.Duration `json:"for"`
	// HandOver asks for something else: when Nomad stops the worker within so long, it gives the calls that it runs back to the queue
	// at once, for workers of the next version, and does not finish them. Lease and For then say nothing.
	HandOver time.Duration `json:"hand_over,omitempty"`
}

// ControlSubject is where a worker of the function is told to rest.
func (f Function) ControlSubject(alloc string) string {
	return "freshet.control." + f.tokens() + "." + alloc
}

// AllControl is every word to a worker.
const AllControl = "freshet.control.>"

// Encode is the message.
func (r Rest) Encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode rest: %w", err)
	}
	return data, nil
}

// ParseRest decodes the message.
func ParseRest(data []byte) (Rest, error) {
	var r Rest
	if err := json.Unmarshal(data, &r); err != nil {
		return Rest{}, fmt.Errorf("decode rest: %w", err)
	}
	return r, nil
}

// Pause ends the pulling without giving anything back: calls that are on their way are taken. The channel closes when none is
// on its way any more; nil says that the puller pauses already. Resume pulls again.
func (p *Puller) Pause() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resting {
		return nil
	}
	p.resting = true
	p.asked = 0
	clear(p.pulls)
	quiet := make(chan struct{})
	p.sub.SetClosedHandler(func(string) { close(quiet) })
	if err := p.sub.Drain(); err != nil { // it was drained or closed before
		quiet = make(chan struct{})
		close(quiet)
	}
	return quiet
}

// Resume pulls again after Pause; on a puller that does not rest or was stopped it does nothing.
func (p *Puller) Resume() error {
	p.mu.Lock()
	resting, stopped := p.resting, p.stopped
	p.resting = false
	p.mu.Unlock()
	if !resting || stopped {
		return nil
	}
	return p.newEpoch()
}

// replaceLocked lets go of the subscription that a new one follows, which still hands over what is on its way: else the queue would miss
// it for as long as AckWait.
func (p *Puller) replaceLocked(sub *nats.Subscription, inbox string) {
	if p.sub != nil && !p.sub.IsDraining() {
		_ = p.sub.Drain() // fails only when the connection is closed
	}
	p.sub, p.inbox = sub, inbox
}
