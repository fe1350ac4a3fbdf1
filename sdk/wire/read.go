package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Reader reads messages from a peer. It is not safe for concurrent use.
type Reader struct {
	in         *bufio.Reader
	maxPayload int64
	partial    map[partialKey]*Message
	// held is the payload bytes of all incomplete messages.
	held int64
}

type partialKey struct {
	typ  Type
	call uint64
}

// NewReader reads from in. maxPayload bounds one message's payload, and the sum of all incomplete ones to four times that;
// 0 means DefaultMaxPayload.
func NewReader(in io.Reader, maxPayload int64) *Reader {
	if maxPayload <= 0 {
		maxPayload = DefaultMaxPayload
	}
	return &Reader{
		in:         bufio.NewReaderSize(in, 64<<10),
		maxPayload: maxPayload,
		partial:    make(map[partialKey]*Message),
	}
}

// Read returns the next whole message. It returns io.EOF when the peer closed between frames, io.ErrUnexpectedEOF within
// one, and an error that wraps one of this package's sentinels when the peer broke the protocol.
func (r *Reader) Read() (Message, error) {
	for {
		msg, whole, err := r.frame()
		if err != nil || whole {
			return msg, err
		}
	}
}

// frame reads one frame; whole says that it completed a message.
func (r *Reader) frame() (msg Message, whole bool, err error) {
	var header [HeaderSize]byte
	if _, err := io.ReadFull(r.in, header[:]); err != nil {
		return Message{}, false, r.checkText(header, err)
	}
	if header[0] != magic0 || header[1] != magic1 {
		return Message{}, false, fmt.Errorf("%w: got %q", ErrMagic, header[:])
	}
	typ, flags := Type(header[2]), header[3]
	if !typ.known() {
		return Message{}, false, fmt.Errorf("%w: 0x%02x", ErrType, header[2])
	}
	if flags&^flagMore != 0 {
		return Message{}, false, fmt.Errorf("%w: 0x%02x", ErrFlags, flags)
	}
	call := binary.BigEndian.Uint64(header[4:])
	size := binary.BigEndian.Uint32(header[12:])
	if size > MaxFrame {
		return Message{}, false, fmt.Errorf("%w: frame of %d bytes, limit %d", ErrTooLarge, size, MaxFrame)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r.in, body); err != nil {
		return Message{}, false, fmt.Errorf("read frame body: %w", noEOF(err))
	}
	return r.assemble(partialKey{typ, call}, body, flags&flagMore != 0)
}

// checkText tells a short text printed on the protocol from a peer that closed.
func (r *Reader) checkText(header [HeaderSize]byte, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) && header[0] != magic0 {
		return fmt.Errorf("%w: got %q", ErrMagic, header[:])
	}
	return err
}

func (r *Reader) assemble(key partialKey, body []byte, more bool) (Message, bool, error) {
	msg, continued := r.partial[key]
	if !continued {
		first, err := splitMeta(key, body)
		if err != nil {
			return Message{}, false, err
		}
		msg = &first
	} else {
		r.held -= int64(len(msg.Payload))
		msg.Payload = append(msg.Payload, body...)
	}
	size := int64(len(msg.Payload))
	if size > r.maxPayload {
		return Message{}, false, fmt.Errorf("%w: payload of over %d bytes", ErrTooLarge, r.maxPayload)
	}
	if !more {
		delete(r.partial, key)
		return *msg, true, nil
	}
	r.held += size
	r.partial[key] = msg
	if len(r.partial) > MaxPartial || r.held > 4*r.maxPayload {
		return Message{}, false, fmt.Errorf("%w: %d incomplete messages of %d bytes", ErrTooLarge, len(r.partial), r.held)
	}
	return Message{}, false, nil
}

func splitMeta(key partialKey, body []byte) (Message, error) {
	if len(body) < 4 {
		return Message{}, fmt.Errorf("%w: body of %d bytes has no meta length", ErrMeta, len(body))
	}
	size := binary.BigEndian.Uint32(body)
	if size > MaxMeta {
		return Message{}, fmt.Errorf("%w: meta of %d bytes, limit %d", ErrTooLarge, size, MaxMeta)
	}
	if int(size) > len(body)-4 {
		return Message{}, fmt.Errorf("%w: meta of %d bytes in a body of %d", ErrMeta, size, len(body))
	}
	msg := Message{Type: key.typ, Call: key.call, Payload: body[4+size:]}
	if size > 0 {
		msg.Meta = body[4 : 4+size : 4+size]
	}
	return msg, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// DecodeMeta reads a message's meta into its type's struct.
func (m Message) DecodeMeta(into any) error {
	if err := json.Unmarshal(m.Meta, into); err != nil {
		return fmt.Errorf("%w: of message 0x%02x: %w", ErrMeta, uint8(m.Type), err)
	}
	return nil
}
