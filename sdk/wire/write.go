package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"
)

const flagMore = 1

// busyWithin is how soon one write follows another where many calls run. Then those who are ready to run may have frames too, and are
// let run first; a lone call's frames, a good millisecond apart, leave at once.
const busyWithin = 250 * time.Microsecond

// maxBuffered is how much may wait for a slow peer before writers wait too.
const maxBuffered = 1 << 20

// Writer writes messages to a peer. It is safe for concurrent use: messages written at the same time leave in one
// system call, which in a sandbox costs more than the copying.
type Writer struct {
	out io.Writer

	mu      sync.Mutex
	room    sync.Cond // signalled when the buffer shrank
	buf     []byte    // what waits for the flusher
	spare   []byte
	writing bool // one writer at a time flushes for all
	flushed time.Time
	err     error
}

// NewWriter writes to out.
func NewWriter(out io.Writer) *Writer {
	w := &Writer{out: out}
	w.room.L = &w.mu
	return w
}

// Write sends a message with its meta (a struct of this package, or nil) encoded. A nil error means that the message is
// sent or will be with the next one; once writing failed, every later call returns that failure.
func (w *Writer) Write(typ Type, call uint64, meta any, payload []byte) error {
	var encoded []byte
	if meta != nil {
		var err error
		if encoded, err = json.Marshal(meta); err != nil {
			return fmt.Errorf("encode meta of message 0x%02x: %w", uint8(typ), err)
		}
	}
	return w.WriteMessage(Message{Type: typ, Call: call, Meta: encoded, Payload: payload})
}

// WriteMessage sends a message as it is; errors as Write, and ErrTooLarge for a meta over MaxMeta.
func (w *Writer) WriteMessage(msg Message) error {
	if len(msg.Meta) > MaxMeta {
		return fmt.Errorf("%w: meta of %d bytes, limit %d", ErrTooLarge, len(msg.Meta), MaxMeta)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	first := min(len(msg.Payload), MaxFrame-4-len(msg.Meta))
	if err := w.append(msg, msg.Payload[:first], true, first < len(msg.Payload)); err != nil {
		return err
	}
	for rest := msg.Payload[first:]; len(rest) > 0; {
		n := min(len(rest), MaxFrame)
		if err := w.append(msg, rest[:n], false, n < len(rest)); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// append queues one frame and flushes unless another writer already does. The lock is held.
func (w *Writer) append(msg Message, payload []byte, first, more bool) error {
	for len(w.buf) > maxBuffered && w.err == nil {
		w.room.Wait()
	}
	if w.err != nil {
		return w.err
	}
	w.buf = appendFrame(w.buf, msg, payload, first, more)
	if !w.writing {
		w.flush()
	}
	return w.err
}

// flush writes until nothing waits, releasing the lock while it does.
func (w *Writer) flush() {
	w.writing = true
	if time.Since(w.flushed) < busyWithin {
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
	}
	for len(w.buf) > 0 && w.err == nil {
		out := w.buf
		w.buf = w.spare[:0]
		w.mu.Unlock()
		_, err := w.out.Write(out)
		w.mu.Lock()
		w.spare = keepSmall(out)
		if err != nil {
			w.err = fmt.Errorf("write frames: %w", err)
		}
		w.room.Broadcast()
	}
	w.flushed = time.Now()
	w.writing = false
}

// keepSmall lets a buffer grown by one large payload go.
func keepSmall(buf []byte) []byte {
	if cap(buf) > maxBuffered {
		return nil
	}
	return buf
}

func appendFrame(buf []byte, msg Message, payload []byte, first, more bool) []byte {
	size := len(payload)
	if first {
		size += 4 + len(msg.Meta)
	}
	var flags byte
	if more {
		flags = flagMore
	}
	buf = append(buf, magic0, magic1, byte(msg.Type), flags)
	buf = binary.BigEndian.AppendUint64(buf, msg.Call)
	buf = binary.BigEndian.AppendUint32(buf, uint32(size))
	if first {
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(msg.Meta)))
		buf = append(buf, msg.Meta...)
	}
	return append(buf, payload...)
}

// Negotiate picks the version to speak with a host that offers the range in its Hello; ErrVersion when there is none.
func Negotiate(hello Hello) (int, error) {
	if hello.MinVersion > Version || hello.Version < MinVersion {
		return 0, fmt.Errorf("%w: the host speaks %d to %d, this guest %d to %d: build the program with a matching SDK",
			ErrVersion, hello.MinVersion, hello.Version, MinVersion, Version)
	}
	return min(hello.Version, Version), nil
}
