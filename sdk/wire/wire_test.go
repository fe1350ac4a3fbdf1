package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// frame makes a frame as a peer could, with any mistake.
func frame(typ, flags byte, call uint64, body []byte) []byte {
	b := []byte{0xF5, 0x52, typ, flags}
	b = binary.BigEndian.AppendUint64(b, call)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// meta makes the body of a first frame.
func meta(text, payload string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	return append(append(b, text...), payload...)
}

func TestMessagesArriveWholeAlsoWhenTheyInterleave(t *testing.T) {
	in, out := io.Pipe()
	w := wire.NewWriter(out)
	const calls, each = 8, 20
	payload := func(call, i int) []byte {
		return bytes.Repeat([]byte{byte(call), byte(i)}, i*wire.MaxFrame/each)
	}
	var writers sync.WaitGroup
	for call := range calls {
		writers.Go(func() {
			for i := range each {
				if err := w.Write(wire.TypeYield, uint64(call), wire.Result{ContentType: fmt.Sprint(i)}, payload(call, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); _ = out.Close() }()
	r := wire.NewReader(in, 0)
	var next [calls]int
	for {
		msg, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var result wire.Result
		if err := msg.DecodeMeta(&result); err != nil {
			t.Fatal(err)
		}
		i := next[msg.Call]
		if result.ContentType != fmt.Sprint(i) || !bytes.Equal(msg.Payload, payload(int(msg.Call), i)) {
			t.Fatalf("call %d: message %s of %d bytes, want message %d", msg.Call, result.ContentType, len(msg.Payload), i)
		}
		next[msg.Call]++
	}
	for call, got := range next {
		if got != each {
			t.Errorf("call %d: %d messages, want %d", call, got, each)
		}
	}
}

func TestReaderRefusesWhatIsNoProtocol(t *testing.T) {
	tooMany := func() []byte {
		var b []byte
		for call := range uint64(wire.MaxPartial + 1) {
			b = append(b, frame(0x86, 1, call, meta("", ""))...)
		}
		return b
	}
	tooLong := append(frame(0x84, 1, 1, meta("", "")), bytes.Repeat(frame(0x84, 1, 1, make([]byte, 100)), 11)...)
	for name, test := range map[string]struct {
		bytes []byte
		want  error
	}{
		"text":                 {[]byte("Loading model weights from disk..."), wire.ErrMagic},
		"short text":           {[]byte("hi\n"), wire.ErrMagic},
		"unknown type":         {frame(0x7f, 0, 1, nil), wire.ErrType},
		"unknown flags":        {frame(0x84, 2, 1, nil), wire.ErrFlags},
		"frame over the limit": {[]byte{0xF5, 0x52, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}, wire.ErrTooLarge},
		"no meta length":       {frame(0x84, 0, 1, []byte{0, 0}), wire.ErrMeta},
		"meta cut short":       {frame(0x84, 0, 1, []byte{0, 0, 0, 9, '{', '}'}), wire.ErrMeta},
		"meta over the limit":  {frame(0x84, 0, 1, binary.BigEndian.AppendUint32(nil, wire.MaxMeta+1)), wire.ErrTooLarge},
		"payload too long":     {tooLong, wire.ErrTooLarge},
		"too many incomplete":  {tooMany(), wire.ErrTooLarge},
		"header cut short":     {frame(0x84, 0, 1, nil)[:7], io.ErrUnexpectedEOF},
		"body cut short":       {frame(0x84, 0, 1, meta("", "payload"))[:20], io.ErrUnexpectedEOF},
		"nothing":              {nil, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			r := wire.NewReader(bytes.NewReader(test.bytes), 1000)
			for {
				if _, err := r.Read(); err != nil {
					if !errors.Is(err, test.want) {
						t.Errorf("got %v, want %v", err, test.want)
					}
					return
				}
			}
		})
	}
}

func TestMetaThatIsNotItsType(t *testing.T) {
	msg, err := wire.NewReader(bytes.NewReader(frame(0x84, 0, 1, meta(`{"content_type":7}`, ""))), 0).Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := msg.DecodeMeta(&wire.Result{}); !errors.Is(err, wire.ErrMeta) {
		t.Errorf("got %v, want %v", err, wire.ErrMeta)
	}
}

func TestWriterStaysBroken(t *testing.T) {
	in, out := io.Pipe()
	_ = in.Close()
	w := wire.NewWriter(out)
	for range 2 {
		if err := w.Write(wire.TypeReady, 0, nil, nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v, want %v", err, io.ErrClosedPipe)
		}
	}
	if err := wire.NewWriter(io.Discard).Write(wire.TypeFailure, 1, wire.Error{Message: string(make([]byte, wire.MaxMeta))}, nil); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a meta over the limit: got %v", err)
	}
}

func TestNegotiate(t *testing.T) {
	for _, test := range []struct{ least, most, want int }{
		{1, 1, 1}, {1, 9, wire.Version}, {0, 1, 1}, {wire.Version + 1, wire.Version + 2, 0}, {-1, wire.MinVersion - 1, 0},
	} {
		got, err := wire.Negotiate(wire.Hello{MinVersion: test.least, Version: test.most})
		if got != test.want || (test.want == 0) != errors.Is(err, wire.ErrVersion) {
			t.Errorf("%d to %d: got %d, %v, want %d", test.least, test.most, got, err, test.want)
		}
	}
}

func TestErrorsAreToldApartByKind(t *testing.T) {
	err := fmt.Errorf("call: %w", &wire.Error{Kind: wire.KindTimeout, Message: "too slow"})
	if !errors.Is(err, &wire.Error{Kind: wire.KindTimeout}) || errors.Is(err, &wire.Error{Kind: wire.KindCrash}) {
		t.Errorf("%v is not told by its kind", err)
	}
}

// FuzzReader: whatever a guest sends, reading it ends without a panic and keeps to the limits, and what was read can be
// written and reads the same.
func FuzzReader(f *testing.F) {
	f.Add([]byte("no frame"))
	f.Add(frame(0x84, 0, 7, meta(`{"content_type":"a/b"}`, "payload")))
	f.Add(append(frame(0x86, 1, 7, meta("", "one")), frame(0x86, 0, 7, []byte("two"))...))
	f.Add(append(frame(0x87, 1, 1, meta("{}", "a")), frame(0x84, 0, 2, meta("", ""))...))
	const limit = 1 << 10
	f.Fuzz(func(t *testing.T, data []byte) {
		r := wire.NewReader(bytes.NewReader(data), limit)
		var read []wire.Message
		for {
			msg, err := r.Read()
			if err != nil {
				break
			}
			if len(msg.Payload) > limit || len(msg.Meta) > wire.MaxMeta {
				t.Fatalf("a message of %d and %d bytes passed", len(msg.Meta), len(msg.Payload))
			}
			read = append(read, msg)
		}
		var again bytes.Buffer
		w := wire.NewWriter(&again)
		for _, msg := range read {
			if err := w.WriteMessage(msg); err != nil {
				t.Fatal(err)
			}
		}
		r = wire.NewReader(&again, limit)
		for _, want := range read {
			got, err := r.Read()
			if err != nil || got.Type != want.Type || got.Call != want.Call || !bytes.Equal(got.Meta, want.Meta) || !bytes.Equal(got.Payload, want.Payload) {
				t.Fatalf("got %+v, %v, want %+v", got, err, want)
			}
		}
	})
}
