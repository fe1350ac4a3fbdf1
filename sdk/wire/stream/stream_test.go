package stream_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// session is both sides of a session that has streams alone.
type session struct {
	opener   *stream.Opener
	acceptor *stream.Acceptor
	end      func()
}

// connect makes a session over pipes until the test ends.
func connect(t testing.TB, serve func(*stream.Conn)) *session {
	t.Helper()
	toGuest, hostOut := io.Pipe()
	toHost, guestOut := io.Pipe()
	s := &session{opener: stream.NewOpener(wire.NewWriter(hostOut)), acceptor: stream.NewAcceptor(wire.NewWriter(guestOut), serve)}
	gone := errors.New("the session is over")
	var reading sync.WaitGroup
	pump := func(in io.Reader, handle func(wire.Message) error, end func(error)) {
		defer end(gone)
		for r := wire.NewReader(in, 0); ; {
			msg, err := r.Read()
			if err != nil {
				return
			}
			if err := handle(msg); err != nil {
				t.Errorf("handle 0x%02x: %v", uint8(msg.Type), err)
				return
			}
		}
	}
	reading.Go(func() { pump(toGuest, s.acceptor.Handle, s.acceptor.Close) })
	reading.Go(func() { pump(toHost, s.opener.Handle, s.opener.Close) })
	s.end = sync.OnceFunc(func() {
		_, _ = hostOut.Close(), guestOut.Close()
		_, _ = toGuest.Close(), toHost.Close()
		reading.Wait()
	})
	t.Cleanup(s.end)
	return s
}

func echo(c *stream.Conn) {
	if c.Accept() == nil {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	}
}

func open(t testing.TB, s *session) *stream.Conn {
	t.Helper()
	c, err := s.opener.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBytesGoBothWaysAndEndsArrive(t *testing.T) {
	s := connect(t, func(c *stream.Conn) {
		echo(c)
		<-c.Done() // the end of each side is the end: nobody closes
	})
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // four windows
	var streams sync.WaitGroup
	for range 8 {
		c := open(t, s)
		streams.Go(func() {
			go func() {
				if _, err := c.Write(data); err != nil {
					t.Error(err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Error(err)
				}
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			<-c.Done()
		})
	}
	streams.Wait()
}

// TestASlowReaderHoldsItsSenderAndNobodyElse: no more than a window is on the way, and other streams go on.
func TestASlowReaderHoldsItsSenderAndNobodyElse(t *testing.T) {
	release := make(chan struct{})
	var slow sync.Once
	s := connect(t, func(c *stream.Conn) {
		first := false
		slow.Do(func() { first = true })
		if !first {
			echo(c)
			return
		}
		if c.Accept() == nil {
			<-release
			_, _ = io.Copy(io.Discard, c)
		}
	})
	stuck := open(t, s)
	if err := stuck.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := stuck.Write(make([]byte, 4*wire.StreamWindow))
	var timeout net.Error
	if n != wire.StreamWindow || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("wrote %d bytes to a reader that reads nothing: %v", n, err)
	}
	other := open(t, s)
	if _, err := other.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(other, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := stuck.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if n, err := stuck.Write(make([]byte, 2*wire.StreamWindow)); err != nil {
		t.Errorf("wrote %d bytes to a reader that reads again: %v", n, err)
	}
}

func TestWhatWasWrittenBeforeACloseArrives(t *testing.T) {
	got := make(chan []byte, 1)
	s := connect(t, func(c *stream.Conn) {
		if c.Accept() != nil {
			return
		}
		<-c.Done()
		data, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write to a peer that closed: %v", err)
		}
		got <- data
	})
	c := open(t, s)
	if _, err := c.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if data := <-got; string(data) != "last words" {
		t.Errorf("got %q", data)
	}
}

func TestErrorsReachTheOtherSide(t *testing.T) {
	refused := &wire.Error{Kind: wire.KindUser, Message: "nobody listens"}
	s := connect(t, func(c *stream.Conn) { _ = c.Fail(refused) })
	if _, err := s.opener.Open(t.Context()); !errors.Is(err, &wire.Error{Kind: wire.KindUser}) {
		t.Errorf("a stream that was refused: %v", err)
	}
	broken := connect(t, func(c *stream.Conn) { _, _, _ = c.Accept(), first(c.Write([]byte("part"))), c.Fail(refused) })
	c := open(t, broken)
	<-c.Done()
	data, err := io.ReadAll(c)
	if string(data) != "part" || !errors.Is(err, &wire.Error{Kind: wire.KindUser}) {
		t.Errorf("got %q, %v", data, err)
	}
}

func first(n int, _ error) int { return n }

func TestOpenEndsWithItsContext(t *testing.T) {
	ended := make(chan struct{})
	s := connect(t, func(c *stream.Conn) { <-c.Done(); close(ended) }) // never accepts
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("given up")
	time.AfterFunc(10*time.Millisecond, func() { cancel(reason) })
	if _, err := s.opener.Open(ctx); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestTheEndOfTheSessionEndsStreams(t *testing.T) {
	s := connect(t, func(c *stream.Conn) { _, _ = c.Accept(), first(c.Read(make([]byte, 1))) })
	c := open(t, s)
	time.AfterFunc(10*time.Millisecond, s.end)
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a read at the session's end: %v", err)
	}
	if _, err := s.opener.Open(t.Context()); err == nil {
		t.Error("a stream was opened after the session's end")
	}
}

// guestMessage is a message as a hostile guest sends it.
func guestMessage(typ wire.Type, number uint64, meta, payload string) wire.Message {
	return wire.Message{Type: typ, Call: number, Meta: []byte(meta), Payload: []byte(payload)}
}

func TestHostileGuests(t *testing.T) {
	window := string(make([]byte, wire.StreamWindow))
	for name, test := range map[string]struct {
		messages []wire.Message
		want     error
	}{
		"never opened":       {[]wire.Message{guestMessage(wire.TypeGuestData, 9, "", "x")}, wire.ErrType},
		"number zero":        {[]wire.Message{guestMessage(wire.TypeGuestData, 0, "", "x")}, wire.ErrType},
		"opened twice":       {[]wire.Message{guestMessage(wire.TypeOpened, 1, "", ""), guestMessage(wire.TypeOpened, 1, "", "")}, wire.ErrType},
		"empty data":         {[]wire.Message{guestMessage(wire.TypeGuestData, 1, "", "")}, wire.ErrType},
		"over the window":    {[]wire.Message{guestMessage(wire.TypeGuestData, 1, "", window), guestMessage(wire.TypeGuestData, 1, "", "x")}, wire.ErrTooLarge},
		"data after end":     {[]wire.Message{guestMessage(wire.TypeGuestEnd, 1, "", ""), guestMessage(wire.TypeGuestData, 1, "", "x")}, wire.ErrType},
		"ended twice":        {[]wire.Message{guestMessage(wire.TypeGuestEnd, 1, "", ""), guestMessage(wire.TypeGuestEnd, 1, "", "")}, wire.ErrType},
		"too much credit":    {[]wire.Message{guestMessage(wire.TypeGuestCredit, 1, `{"bytes":1}`, "")}, wire.ErrTooLarge},
		"negative credit":    {[]wire.Message{guestMessage(wire.TypeGuestCredit, 1, `{"bytes":-1}`, "")}, wire.ErrTooLarge},
		"credit of a kind":   {[]wire.Message{guestMessage(wire.TypeGuestCredit, 1, `{"bytes":"all"}`, "")}, wire.ErrMeta},
		"close of a kind":    {[]wire.Message{guestMessage(wire.TypeGuestClose, 1, `[]`, "")}, wire.ErrMeta},
		"host's own types":   {[]wire.Message{guestMessage(wire.TypeData, 1, "", "x")}, wire.ErrType},
		"late words":         {[]wire.Message{guestMessage(wire.TypeGuestClose, 1, "", ""), guestMessage(wire.TypeGuestData, 1, "", window+"x"), guestMessage(wire.TypeGuestClose, 1, "", "")}, nil},
		"data before opened": {[]wire.Message{guestMessage(wire.TypeGuestData, 1, "", "x"), guestMessage(wire.TypeOpened, 1, "", "")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			opener, closed := opened(t)
			defer closed()
			var err error
			for _, msg := range test.messages {
				err = errors.Join(err, opener.Handle(msg))
			}
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// opened is a host with one stream that no guest answers; closed ends it.
func opened(t testing.TB) (opener *stream.Opener, closed func()) {
	asked, out := io.Pipe()
	opener = stream.NewOpener(wire.NewWriter(out))
	var work sync.WaitGroup
	started := make(chan struct{})
	work.Go(func() {
		r := wire.NewReader(asked, 0)
		if _, err := r.Read(); err != nil {
			t.Error(err)
		}
		close(started)
		for {
			if _, err := r.Read(); err != nil {
				return
			}
		}
	})
	work.Go(func() { _, _ = opener.Open(t.Context()) })
	<-started
	return opener, func() {
		opener.Close(errors.New("the test ends"))
		_ = asked.Close()
		work.Wait()
	}
}

// FuzzStreams: whatever a guest sends, nothing panics or waits, and no stream holds more than its window.
func FuzzStreams(f *testing.F) {
	add := func(messages ...wire.Message) {
		var b bytes.Buffer
		w := wire.NewWriter(&b)
		for _, msg := range messages {
			if err := w.WriteMessage(msg); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b.Bytes())
	}
	add(guestMessage(wire.TypeOpened, 1, "", ""), guestMessage(wire.TypeGuestData, 1, "", "hello"), guestMessage(wire.TypeGuestEnd, 1, "", ""))
	add(guestMessage(wire.TypeGuestCredit, 1, `{"bytes":3}`, ""), guestMessage(wire.TypeGuestClose, 1, `{"kind":"user"}`, ""))
	f.Add(binary.BigEndian.AppendUint64([]byte{0xF5, 0x52, 0x8B, 0}, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		opener, closed := opened(t)
		defer closed()
		received := 0
		for r := wire.NewReader(bytes.NewReader(data), wire.DefaultMaxPayload); ; {
			msg, err := r.Read()
			if err != nil {
				return
			}
			if err := opener.Handle(msg); err != nil || msg.Type == wire.TypeGuestClose {
				return
			}
			if msg.Type == wire.TypeGuestData {
				received += len(msg.Payload)
			}
			if received > wire.StreamWindow {
				t.Fatalf("%d bytes were taken", received)
			}
		}
	})
}
