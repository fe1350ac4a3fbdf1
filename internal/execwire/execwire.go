// Package execwire is what the gateway and whoever watches a command in a worker say to each other over a WebSocket: a binary message is
// what is typed, or, with a byte before it that names the stream, what the command writes; a text message is a Message in JSON.
package execwire

import "github.com/freshet-dev/freshet/sdk/wire"

// The streams that a command writes to.
const (
	Stdout byte = 1
	Stderr byte = 2
)

// MaxMessage is the largest message, in bytes.
const MaxMessage = 1 << 20

// Message is anything but what streams carry; one of its fields is set.
type Message struct {
	// Size is the terminal's, from whoever watches.
	Size *Size `json:"size,omitempty"`
	// End says that nothing more is typed.
	End bool `json:"end,omitempty"`

	// Worker is the allocation that the command runs in; Fresh says that it was started for it, and ends with it.
	Worker string `json:"worker,omitempty"`
	Fresh  bool   `json:"fresh,omitempty"`
	// Exit is the command's exit code: the last message, as Error is, which says why it did not run.
	Exit  *int        `json:"exit,omitempty"`
	Error *wire.Error `json:"error,omitempty"`
}

// Size is a terminal's, in characters.
type Size struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}
