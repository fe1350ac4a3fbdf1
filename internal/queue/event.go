package queue

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventKind is what happened to a worker.
type EventKind string

// The kinds of event.
const (
	// EventReady: the worker can take calls; Phases say where its start's time went.
	EventReady EventKind = "ready"
	// EventSnapshotStored: the worker was frozen into the node's store.
	EventSnapshotStored EventKind = "snapshot_stored"
	// EventRestoreFailed: a snapshot could not be thawed; the worker starts cold.
	EventRestoreFailed EventKind = "restore_failed"
	// EventStartFailed: the guest did not come up.
	EventStartFailed EventKind = "start_failed"
	// EventCrashed: the guest ended while it should have gone on.
	EventCrashed EventKind = "crashed"
	// EventPolicyWrong: a function's scaling policy is wrong, so that an earlier one stays in force. Of no worker.
	EventPolicyWrong EventKind = "policy_wrong"
	// EventStopped: the worker ended as it was asked to.
	EventStopped EventKind = "stopped"
)

// Event is something that happened to a worker, kept in EventsStream.
type Event struct {
	Time  time.Time `json:"time"`
	Kind  EventKind `json:"kind"`
	Alloc string    `json:"alloc"`
	// Thawed says that the worker came from a snapshot.
	Thawed bool `json:"thawed,omitempty"`
	// Phases are durations in ms by name: "spawn", "create", "restore" or "load", "ready", "total".
	Phases map[string]float64 `json:"phases,omitempty"`
	// Reason is for people.
	Reason string `json:"reason,omitempty"`
}

// Encode is the event's message.
func (e Event) Encode() ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return data, nil
}

// ParseEvent decodes an event.
func ParseEvent(data []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	return e, nil
}
