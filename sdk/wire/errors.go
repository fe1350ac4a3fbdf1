package wire

import (
	"errors"
	"fmt"
)

// Kind tells what ended a call without a result; callers decide by it.
type Kind string

// The kinds of error.
const (
	// KindUser is an error that the user's code returned or raised.
	KindUser Kind = "user"
	// KindInput is an input that the function cannot take (malformed, unknown method); a retry does not help.
	KindInput Kind = "input"
	// KindTimeout is an attempt that took longer than the spec's timeout.
	KindTimeout Kind = "timeout"
	// KindCrash is a guest that exited or was killed while the call ran.
	KindCrash Kind = "crash"
	// KindMemory is a guest that was killed because it used more memory than it reserved.
	KindMemory Kind = "oom"
	// KindProtocol is a guest that broke this protocol, for example by printing on it.
	KindProtocol Kind = "protocol"
	// KindLost is a call whose workers vanished (node or supervisor died) as often as the policy allows.
	KindLost Kind = "lost"
	// KindStart is a function whose workers do not start.
	KindStart Kind = "start"
	// KindCancelled is a call that somebody cancelled.
	KindCancelled Kind = "cancelled"
	// KindPayload is an input or output too large for a message that the blob store does not have any more, or not as it was stored,
	// or does not give or take.
	KindPayload Kind = "payload"
	// KindExpired is a call whose own deadline passed before a worker took it.
	KindExpired Kind = "expired"
)

// Error is how a call ended without a result. It is the meta of TypeFailure and TypeFailed, the body of a stored error
// result, and what SDK callers get.
type Error struct {
	Kind Kind `json:"kind"`
	// Type is the error's type in the user's language, such as "*fs.PathError"; empty for errors of the platform.
	Type string `json:"type,omitempty"`
	// Message is for people.
	Message string `json:"message"`
	// Traceback is the user code's stack, where there is one.
	Traceback string `json:"traceback,omitempty"`
	// Exception is the error itself for a caller in the same language, who sent a pickle: that of Python, in base64. Nobody else
	// reads it.
	Exception string `json:"exception,omitempty"`
}

func (e *Error) Error() string {
	if e.Type == "" {
		return fmt.Sprintf("%s: %s", e.Kind, e.Message)
	}
	return fmt.Sprintf("%s: %s: %s", e.Kind, e.Type, e.Message)
}

// Is makes errors.Is(err, &Error{Kind: KindTimeout}) match by kind.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Kind == e.Kind && other.Type == "" && other.Message == ""
}

// Errors of reading a peer. All of them mean that the peer broke the protocol; nothing more can be read from it.
var (
	// ErrMagic: the bytes are no frame, usually text printed on the protocol's descriptor.
	ErrMagic = errors.New("not a frame")
	// ErrType: a type that this version does not know.
	ErrType = errors.New("unknown message type")
	// ErrFlags: flags that this version does not know.
	ErrFlags = errors.New("unknown flags")
	// ErrTooLarge: a frame, meta or payload over its limit.
	ErrTooLarge = errors.New("over the limit")
	// ErrMeta: a meta that is cut short or not the JSON its type needs.
	ErrMeta = errors.New("malformed meta")
	// ErrVersion: no protocol version in common.
	ErrVersion = errors.New("no protocol version in common")
)
