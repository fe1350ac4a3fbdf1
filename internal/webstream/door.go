package webstream

import "sync"

// Headers between a gateway and a worker's door. Neither clients nor guests see or set them.
const (
	// KeyHeader holds the door's key.
	KeyHeader = "Freshet-Door-Key"
	// FaultHeader is in a response that the worker gives in place of its guest: the kind of error, whose message is the body.
	FaultHeader = "Freshet-Door-Fault"
)

// Refused is the fault of a worker that takes no request now: nothing of the request was used.
const Refused = "refused"

// bufferSize is what a proxy copies at once, in bytes.
const bufferSize = 64 << 10

// Buffers is an httputil.BufferPool. Its zero value is ready.
type Buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *Buffers) Get() []byte {
	if kept, ok := b.pool.Get().(*[]byte); ok {
		return *kept
	}
	return make([]byte, bufferSize)
}

// Put implements httputil.BufferPool.
func (b *Buffers) Put(buffer []byte) { b.pool.Put(&buffer) }
