package queue

import (
	"encoding/json"
	"fmt"
	"time"
)

// HeartbeatEvery is how often a worker reports when nothing changes; DeadAfter is when a silent worker counts as gone.
const (
	HeartbeatEvery = time.Second
	DeadAfter      = 4 * HeartbeatEvery
)

// State is a worker's state.
type State string

// The states of a worker, in the order of its life. Stopped is its last word.
const (
	StateStarting  State = "starting"
	StateRestoring State = "restoring"
	StateReady     State = "ready"
	StateBusy      State = "busy"
	StateDraining  State = "draining"
	StateStopped   State = "stopped"
)

// Heartbeat is what a worker says of itself, every HeartbeatEvery and at each change of state.
type Heartbeat struct {
	Namespace string `json:"namespace"`
	App       string `json:"app"`
	Function  string `json:"function"`
	Version   string `json:"version,omitempty"`
	Alloc     string `json:"alloc"`
	Node      string `json:"node,omitempty"`
	State     State  `json:"state"`
	// Slots is the worker's concurrency, Busy how many are in use, Web how many of those by requests to its server.
	Slots int `json:"slots"`
	Busy  int `json:"busy"`
	Web   int `json:"web,omitempty"`
	// Door is where gateways reach the worker's server; nil when it has none, or takes no requests yet.
	Door *Door `json:"door,omitempty"`
	// Done counts the calls that ended here, Failed those of them that ended in an error.
	Done   int64 `json:"done"`
	Failed int64 `json:"failed"`
	// Started is when the worker began to start, Ready when it could take calls.
	Started time.Time `json:"started"`
	Ready   time.Time `json:"ready,omitzero"`
	// Thawed says that it came from a snapshot.
	Thawed bool `json:"thawed"`
	// Resting says that it pulls no calls because it was asked to (see Rest), and that none is on its way to it. Its state is
	// draining meanwhile.
	Resting bool `json:"resting,omitempty"`
	// Reason says why it is draining or stopped, for people.
	Reason string `json:"reason,omitempty"`
}

// Door is where a worker takes the requests to its server.
type Door struct {
	// Address is a host and a port.
	Address string `json:"address"`
	// Key opens it. Only gateways know it.
	Key string `json:"key,omitempty"`
}

// Key is the function whose worker it is.
func (h Heartbeat) Key() Function {
	return Function{Namespace: h.Namespace, App: h.App, Name: h.Function}
}

// Encode is the heartbeat's message.
func (h Heartbeat) Encode() ([]byte, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode heartbeat: %w", err)
	}
	return data, nil
}

// ParseHeartbeat decodes a heartbeat.
func ParseHeartbeat(data []byte) (Heartbeat, error) {
	var h Heartbeat
	if err := json.Unmarshal(data, &h); err != nil {
		return Heartbeat{}, fmt.Errorf("decode heartbeat: %w", err)
	}
	return h, nil
}

// LogRecord is one line in LogsStream.
type LogRecord struct {
	Time time.Time `json:"time"`
	// Call is the call that wrote the line, empty when it was the worker or the guest outside any call.
	Call  string `json:"call,omitempty"`
	Alloc string `json:"alloc"`
	Level string `json:"level,omitempty"`
	// Source is "guest", or "worker" for what the supervisor says about it.
	Source string `json:"source"`
	Text   string `json:"text"`
}
