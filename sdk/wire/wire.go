// Package wire is the framed protocol between a supervisor and its guest, spoken over the guest's standard input
// (host to guest) and standard output (guest to host).
//
// A frame is a 16-byte header, then a body:
//
//	offset  size  field
//	0       2     magic 0xF5 0x52; anything else means that the guest prints on its protocol
//	2       1     type
//	3       1     flags: 1 = more frames of this message follow
//	4       8     call: the number the host gave the call, 0 for messages about the whole guest, big endian
//	12      4     length of the body, big endian, at most MaxFrame
//
// A message is one frame or several with the same type and call, all but the last with the more flag. Its first
// frame's body starts with the length of the meta as 4 bytes big endian, then the meta as JSON, then payload; the
// body of each further frame is payload. Frames of different calls may interleave.
//
// A session: the host sends Hello; the guest answers Welcome, runs its load hooks and sends Ready (or Failed). From then
// on calls run concurrently: Call, then any number of Log and Yield, then one Result or Failure. Cancel asks for an early end.
// Calls with the same Batch are run together and answered one by one; a guest that does not know of batches may run each alone.
// Freeze makes the guest quiesce and answer Frozen; it then does nothing until Thawed, sent to the original and to every
// copy, which the guest answers with Ready after its thaw hooks. Drain lets calls finish and ends with Drained and exit.
//
// From version 2 on, a guest whose Welcome says so also takes streams: connections to its own server, in the host's numbering,
// apart from that of calls. The host sends Open, and the guest Opened or Close. Both then send Data, as much as the other has
// granted: StreamWindow bytes at first, and what Credit adds as it is taken out again. End says that its sender sends no more
// Data, Close that it also wants none: what was sent before it still counts. A stream is over after a Close, or an End of
// each side. What still comes for a stream that is over is ignored. Package stream does all this.
//
// A call's input or output that is too large for a message travels by a stream of the call's own, with a guest whose Ready says
// Payloads. The host opens it after a Call whose meta says Large, or when the guest asks by Large. The input is what the host sends
// until its End, the output what the guest sends until its End or Close, before a Result that says so.
//
// A guest reaches no network by itself, but it may call other functions: it sends Dial, and the host opens a stream whose meta has the same
// number and leads to a gateway. What the host lets through is the host's to say. The streams end at a freeze.
//
// The guest is hostile as far as the host is concerned: every limit here is checked on reading.
package wire

import "time"

// Version is the newest version of the protocol spoken here; MinVersion the oldest.
const (
	Version    = 2
	MinVersion = 1
)

// Limits on what a peer may send. The frame limit keeps one call from holding up others; a payload up to the limit
// travels in several frames.
const (
	HeaderSize = 16
	// MaxFrame is the largest body of one frame in bytes.
	MaxFrame = 256 << 10
	// MaxMeta is the largest meta in bytes; it fits into the first frame.
	MaxMeta = 64 << 10
	// DefaultMaxPayload is the largest payload of one message in bytes, unless a Reader is given another.
	DefaultMaxPayload = 64 << 20
	// StreamWindow is how many bytes of a stream may be on their way to a side that has not taken them, for each direction.
	StreamWindow = 256 << 10
	// MaxPartial is the number of messages of one connection that may be incomplete at once.
	MaxPartial = 4096
)

const (
	magic0 = 0xF5
	magic1 = 0x52
)

// Type is a message's type. The host's are below 0x80, the guest's above.
type Type uint8

// The host's messages.
const (
	// TypeHello starts a session; meta Hello.
	TypeHello Type = 0x01
	// TypeCall starts a call; meta Call, payload the input.
	TypeCall Type = 0x02
	// TypeCancel asks for a call's early end; meta Cancel. A guest ignores it for a call that it does not run, while frozen too.
	TypeCancel Type = 0x03
	// TypeFreeze asks the guest to quiesce for a snapshot; no meta.
	TypeFreeze Type = 0x04
	// TypeThawed wakes a frozen guest, the original or a copy; meta Thawed.
	TypeThawed Type = 0x05
	// TypeDrain asks the guest to finish its calls and exit; no meta.
	TypeDrain Type = 0x06
	// TypeOpen opens a stream to the guest's server, or, with meta Open, one of a call. The message's call is the stream's number, higher than all before.
	TypeOpen Type = 0x07
	// TypeData, TypeEnd, TypeCredit and TypeClose are the host's side of a stream; the guest's have the same form.
	TypeData   Type = 0x08
	TypeEnd    Type = 0x09
	TypeCredit Type = 0x0A
	TypeClose  Type = 0x0B
)

// The guest's messages.
const (
	// TypeWelcome answers Hello; meta Welcome.
	TypeWelcome Type = 0x81
	// TypeReady says that the load or thaw hooks are done; meta Ready, or none.
	TypeReady Type = 0x82
	// TypeFailed says that a load or thaw hook failed; meta Error. The guest then exits.
	TypeFailed Type = 0x83
	// TypeResult ends a call; meta Result, payload the output.
	TypeResult Type = 0x84
	// TypeFailure ends a call with an error; meta Error.
	TypeFailure Type = 0x85
	// TypeYield is one value of a generator; meta Result, payload the value.
	TypeYield Type = 0x86
	// TypeLog is a line logged by a call, or by the guest itself (call 0); meta Log, payload the text.
	TypeLog Type = 0x87
	// TypeFrozen answers Freeze: nothing runs in the guest and it will write nothing until Thawed; no meta.
	TypeFrozen Type = 0x88
	// TypeDrained answers Drain when the last call ended; no meta. The guest then exits with 0.
	TypeDrained Type = 0x89
	// TypeOpened says that a stream reached the server; no meta.
	TypeOpened Type = 0x8A
	// TypeGuestData is bytes of a stream: the payload, in one frame, not empty; no meta.
	TypeGuestData Type = 0x8B
	// TypeGuestEnd says that no more Data comes from this side; no meta.
	TypeGuestEnd Type = 0x8C
	// TypeGuestCredit lets the other side send more; meta Credit.
	TypeGuestCredit Type = 0x8D
	// TypeGuestClose ends a stream in both directions; meta Error when it broke, none when all is well.
	TypeGuestClose Type = 0x8E
	// TypeLarge asks for the stream of a call, for its output; no meta. Once a call, and not for one that has a stream.
	TypeLarge Type = 0x8F
	// TypeDial asks for a stream to the gateway; no meta. The message's call is the guest's own number for it, higher than all before. Only
	// for a host whose Hello says Gateway.
	TypeDial Type = 0x90
)

func (t Type) known() bool {
	return t >= TypeHello && t <= TypeClose || t >= TypeWelcome && t <= TypeDial
}

// Stream tells whether the message belongs to a stream and not to a call or the whole guest.
func (t Type) Stream() bool {
	return t >= TypeOpen && t <= TypeClose || t >= TypeOpened && t <= TypeGuestClose
}

// Message is one whole message.
type Message struct {
	Type Type
	// Call is the host's number for the call, 0 for messages about the whole guest.
	Call uint64
	// Meta is JSON, nil where the type has none.
	Meta []byte
	// Payload is the caller's bytes, untouched.
	Payload []byte
}

// Hello is what the host says first.
type Hello struct {
	// MinVersion and Version are the range of protocol versions that the host speaks.
	MinVersion int `json:"min_version"`
	Version    int `json:"version"`
	// Identity is who this worker is.
	Identity Identity `json:"identity"`
	// Entry names the function within the program (the spec's handler.entry).
	Entry string `json:"entry,omitempty"`
	// Concurrency is the number of calls the host may have running at once.
	Concurrency int `json:"concurrency"`
	// MaxPayload is the largest payload that either side accepts, in bytes.
	MaxPayload int64 `json:"max_payload"`
	// Payloads says that the host takes outputs over MaxPayload by streams.
	Payloads bool `json:"payloads,omitempty"`
	// Gateway says that the host connects the guest to the gateway, for calls of other functions.
	Gateway bool `json:"gateway,omitempty"`
}

// Identity is who a worker is; a thawed copy gets a new one.
type Identity struct {
	Namespace string `json:"namespace"`
	App       string `json:"app"`
	Function  string `json:"function"`
	Version   string `json:"version,omitempty"`
	// Alloc is the Nomad allocation's id.
	Alloc string `json:"alloc"`
}

// Welcome is the guest's answer to Hello.
type Welcome struct {
	// Version is the one both will speak, within the host's range.
	Version int `json:"version"`
	// SDK names the guest's implementation, for logs, such as "go/1".
	SDK string `json:"sdk"`
	// Streams says that the guest has a server and takes Open.
	Streams bool `json:"streams,omitempty"`
}

// Ready says what a guest that is ready can do; the copies of a snapshot say it too.
type Ready struct {
	// Payloads says that it takes the inputs of calls by streams.
	Payloads bool `json:"payloads,omitempty"`
}

// Open says what a stream is for.
type Open struct {
	// Call is the number of the call whose input and output it carries.
	Call uint64 `json:"call,omitempty"`
	// Dial is the guest's number of the connection to the gateway that it asked for.
	Dial uint64 `json:"dial,omitempty"`
}

// Call describes one attempt of a call.
type Call struct {
	// ID is the call's ULID.
	ID string `json:"id"`
	// Method is the method of a class; empty for a plain function.
	Method string `json:"method,omitempty"`
	// Attempt counts from 1.
	Attempt int `json:"attempt"`
	// Deadline is when this attempt times out.
	Deadline time.Time `json:"deadline"`
	// ContentType is the input's.
	ContentType string `json:"content_type,omitempty"`
	// Traceparent is the W3C trace context.
	Traceparent string `json:"traceparent,omitempty"`
	// Stream says that the host takes the values which the call yields; without it a yield breaks the protocol.
	Stream bool `json:"stream,omitempty"`
	// Large is the size of an input in bytes that comes by a stream, in place of a payload; 0 for one that does not.
	Large int64 `json:"large,omitempty"`
	// Batch says which calls belong together, where the function takes them so.
	Batch *Batch `json:"batch,omitempty"`
	// HTTP makes the call a request for a guest that has a server; the input is its body.
	HTTP *Request `json:"http,omitempty"`
}

// Batch is calls that the guest runs together: it waits until it has all of them, which come one after the other, and answers each by
// its own Result or Failure. Cancel comes for each; as long as one is wanted the others' work goes on, and cancelled ones are
// answered too.
type Batch struct {
	// Number tells the batches of a session apart.
	Number uint64 `json:"number"`
	// Size is how many calls it has.
	Size int `json:"size"`
}

// Request is the head of an HTTP request.
type Request struct {
	Method string `json:"method"`
	// Target is the path with the query, beginning with "/".
	Target string `json:"target"`
	// Host is the name that the client asked for.
	Host string `json:"host,omitempty"`
	// Header is the request's; what concerns one connection alone is dropped.
	Header map[string][]string `json:"header,omitempty"`
}

// Response is the head of an HTTP response.
type Response struct {
	Status int                 `json:"status"`
	Header map[string][]string `json:"header,omitempty"`
}

// Credit lets a stream's other side send more.
type Credit struct {
	// Bytes is how many more, 1 to StreamWindow.
	Bytes int `json:"bytes"`
}

// Cancel says why a call should end early.
type Cancel struct {
	// Kind is KindTimeout or KindCancelled.
	Kind Kind `json:"kind"`
}

// Thawed is the new life of a frozen guest.
type Thawed struct {
	Identity Identity `json:"identity"`
	// Restored is false for the original that goes on after its snapshot, true for a copy.
	Restored bool `json:"restored"`
	// Time is the host's clock: a guest whose clock stood still may compare.
	Time time.Time `json:"time"`
	// Entropy is 32 fresh random bytes, for user-space generators that must not repeat in each copy.
	Entropy []byte `json:"entropy"`
	// Concurrency as in Hello.
	Concurrency int `json:"concurrency"`
}

// Result describes an output or a yielded value.
type Result struct {
	ContentType string `json:"content_type,omitempty"`
	// HTTP is the response's head when the call was a request; the output is its body.
	HTTP *Response `json:"http,omitempty"`
	// Large says that the output came by the call's stream.
	Large bool `json:"large,omitempty"`
}

// Log describes a log line.
type Log struct {
	Time time.Time `json:"time"`
	// Level is a zerolog level name; "info" when empty.
	Level string `json:"level,omitempty"`
}
