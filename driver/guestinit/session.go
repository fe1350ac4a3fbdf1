// Package guestinit is the first process of a sandbox whose program does not speak the frames of package wire itself: it speaks
// them for a command that runs for each call (exec) or for an HTTP server (http), reaps orphans, passes signals on, and leaves
// nothing running behind. cmd/freshet-init is its program; docs/handlers.md says what people see of it.
package guestinit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/driver/guestinit/process"
	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

const (
	// sdkName tells hosts who speaks.
	sdkName = "init/1"
	// streamVersion is the first version of the protocol that has streams.
	streamVersion = 2
)

// Stopped ends a session because what it was for has ended: a server that exited or did not answer its checks.
type Stopped struct {
	// Code is the exit code for the whole guest, never 0.
	Code int
	// Message says how it came, for people.
	Message string
}

func (s *Stopped) Error() string { return s.Message }

var (
	errDrained  = errors.New("drained")
	errDraining = &wire.Error{Kind: wire.KindCancelled, Message: "the worker finishes its calls and takes no more"}
	errFrozen   = &wire.Error{Kind: wire.KindCancelled, Message: "the worker is frozen"}
)

// handler is one way to serve calls.
type handler interface {
	// load brings up what must run before the first call.
	load(ctx context.Context) error
	// call runs one call. A cause of ctx that is a *wire.Error is how the host ended it.
	call(ctx context.Context, c call) (wire.Result, []byte, error)
	// freeze makes all quiet; no call runs.
	freeze(ctx context.Context) error
	// thawed checks that a frozen guest can go on.
	thawed(ctx context.Context) error
	// drain stops what load brought up; no call runs.
	drain(ctx context.Context) error
}

// call is one attempt of a call.
type call struct {
	number uint64
	meta   wire.Call
	input  []byte
}

// session is the guest's side of a session with the host.
type session struct {
	settings Settings
	env      []string
	procs    *process.Table
	writer   *wire.Writer
	handler  handler
	end      context.CancelCauseFunc
	work     sync.WaitGroup
	// streams carry connections to the server, where the handler has one, and bodies, which are too large for a message.
	streams *stream.Acceptor
	bodies  *stream.Bodies
	serves  bool
	// calls is entered by all that runs, streams too.
	calls gate
	// controlling is held while something that concerns the whole guest is done.
	controlling sync.Mutex

	mu      sync.Mutex
	hello   wire.Hello // zero until the host greets; Identity is the newest
	loaded  bool
	cancels map[uint64]context.CancelCauseFunc
}

// Run serves the host that speaks on in and out until it closes in, asks for the end (both are nil), or the guest cannot go on.
// It closes in, and returns when all that it started is gone. env is the environment of what is started, as NAME=value. What comes
// on signals is passed on to it. A *Stopped says which exit code tells the host best.
func Run(ctx context.Context, settings Settings, env []string, in io.ReadCloser, out io.Writer, signals <-chan os.Signal) error {
	procs, err := process.Open()
	if err != nil {
		return errors.Join(err, in.Close())
	}
	s := &session{
		settings: settings, env: env, procs: procs, writer: wire.NewWriter(out), cancels: make(map[uint64]context.CancelCauseFunc),
	}
	err = s.run(ctx, in, signals)
	if errors.Is(err, io.EOF) || errors.Is(err, errDrained) {
		return nil
	}
	return err
}

func (s *session) run(ctx context.Context, in io.ReadCloser, signals <-chan os.Signal) error {
	ctx, s.end = context.WithCancelCause(ctx)
	if err := s.choose(ctx); err != nil {
		s.end(err)
	}
	s.work.Go(func() { s.end(s.read(ctx, wire.NewReader(in, 0))) })
	s.work.Go(func() { s.relay(ctx, signals) })
	<-ctx.Done()
	_ = in.Close() // the reader ends
	s.procs.Close()
	if s.streams != nil {
		s.streams.Close(context.Cause(ctx))
	}
	s.work.Wait()
	return context.Cause(ctx)
}

// choose makes the handler that the settings are for.
func (s *session) choose(ctx context.Context) error {
	s.bodies = stream.NewBodies(s.writer)
	if s.settings.Exec != nil {
		s.streams = stream.NewAcceptor(s.writer, s.bodies.Serve)
		var err error
		s.handler, err = newExec(s)
		return err
	}
	server := &httpHandler{session: s, exited: make(chan struct{}), rest: func() {}}
	s.handler, s.serves = server, true
	s.streams = stream.NewAcceptor(s.writer, func(conn *stream.Conn) {
		if conn.Call() != 0 {
			s.bodies.Serve(conn)
			return
		}
		server.stream(ctx, conn)
	})
	return nil
}

// relay passes signals on.
func (s *session) relay(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case sig := <-signals:
			if number, ok := sig.(syscall.Signal); ok {
				s.procs.Signal(number)
			}
		case <-ctx.Done():
			return
		}
	}
}

// read takes the host's messages until the end. It waits for nothing else, so that a cancel always comes through.
func (s *session) read(ctx context.Context, in *wire.Reader) error {
	for {
		msg, err := in.Read()
		if err != nil {
			return err
		}
		if err := s.handle(ctx, msg); err != nil {
			return err
		}
	}
}

func (s *session) handle(ctx context.Context, msg wire.Message) error {
	greeted, ready := s.progress()
	if greeted == (msg.Type == wire.TypeHello) {
		return fmt.Errorf("the host sent message 0x%02x before its greeting, or greeted twice", uint8(msg.Type))
	}
	if greeted && !ready {
		if msg.Type == wire.TypeDrain { // nothing runs that would have to finish
			return errors.Join(s.writer.Write(wire.TypeDrained, 0, nil, nil), errDrained)
		}
		return fmt.Errorf("the host sent message 0x%02x before this guest was ready", uint8(msg.Type))
	}
	if msg.Type.Stream() {
		return s.streams.Handle(msg)
	}
	switch msg.Type {
	case wire.TypeHello:
		return s.greet(ctx, msg)
	case wire.TypeCall:
		return s.begin(ctx, msg)
	case wire.TypeCancel:
		return s.cancel(msg)
	case wire.TypeFreeze:
		empty := s.calls.shut(errFrozen)
		s.control(ctx, func(ctx context.Context) error { return s.freeze(ctx, empty) })
	case wire.TypeThawed:
		var meta wire.Thawed
		if err := msg.DecodeMeta(&meta); err != nil {
			return err
		}
		s.setIdentity(meta.Identity)
		s.control(ctx, s.thawed)
	case wire.TypeDrain:
		empty := s.calls.shut(errDraining)
		s.control(ctx, func(ctx context.Context) error { return s.drain(ctx, empty) })
	default:
		return fmt.Errorf("the host sent message 0x%02x, which a guest does not take", uint8(msg.Type))
	}
	return nil
}

// progress tells whether the host greeted, and whether the handler has loaded.
func (s *session) progress() (greeted, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hello.Version != 0, s.loaded
}

// control does what concerns the whole guest beside the reading, one thing at a time; an error ends the session.
func (s *session) control(ctx context.Context, do func(context.Context) error) {
	s.work.Go(func() {
		s.controlling.Lock()
		defer s.controlling.Unlock()
		if err := do(ctx); err != nil {
			s.end(err)
		}
	})
}

func (s *session) greeting() wire.Hello {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hello
}

func (s *session) setIdentity(identity wire.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hello.Identity = identity
}

// greet agrees on a version and begins to load.
func (s *session) greet(ctx context.Context, msg wire.Message) error {
	var hello wire.Hello
	if err := msg.DecodeMeta(&hello); err != nil {
		return err
	}
	version, err := wire.Negotiate(hello)
	if err != nil {
		return s.fail(err)
	}
	if hello.MaxPayload <= 0 || hello.MaxPayload > wire.DefaultMaxPayload {
		hello.MaxPayload = wire.DefaultMaxPayload
	}
	s.mu.Lock()
	s.hello = hello
	s.mu.Unlock()
	if err := s.writer.Write(wire.TypeWelcome, 0, wire.Welcome{Version: version, SDK: sdkName, Streams: s.serves && version >= streamVersion}, nil); err != nil {
		return err
	}
	s.control(ctx, func(ctx context.Context) error {
		if err := s.handler.load(ctx); err != nil {
			return s.fail(err)
		}
		s.mu.Lock()
		s.loaded = true // before the host knows
		s.mu.Unlock()
		return s.writer.Write(wire.TypeReady, 0, wire.Ready{Payloads: true}, nil)
	})
	return nil
}

// fail tells the host why this guest cannot serve, and ends it.
func (s *session) fail(err error) error {
	if sent := s.writer.Write(wire.TypeFailed, 0, asError(err), nil); sent != nil {
		return sent
	}
	return err
}

// asError is an error as the host reads it.
func asError(err error) *wire.Error {
	known := &wire.Error{}
	if errors.As(err, &known) {
		return known
	}
	return &wire.Error{Kind: wire.KindUser, Message: err.Error()}
}

// begin runs a call beside the others.
func (s *session) begin(ctx context.Context, msg wire.Message) error {
	c := call{number: msg.Call, input: msg.Payload}
	if err := msg.DecodeMeta(&c.meta); err != nil {
		return err
	}
	if refused := s.calls.enter(); refused != nil {
		return s.writer.Write(wire.TypeFailure, c.number, asError(refused), nil)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	s.cancels[c.number] = cancel
	s.mu.Unlock()
	if c.meta.Large > 0 {
		s.bodies.Begin(c.number)
	}
	s.work.Go(func() {
		defer s.calls.leave()
		defer s.bodies.End(c.number)
		defer s.forget(c.number, cancel)
		if err := s.answer(ctx, c); err != nil {
			s.end(err)
		}
	})
	return nil
}

func (s *session) forget(number uint64, cancel context.CancelCauseFunc) {
	cancel(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cancels, number)
}

func (s *session) answer(ctx context.Context, c call) error {
	result, output, err := s.handler.call(ctx, c)
	if over := context.Cause(ctx); over != nil && !errors.As(over, new(*wire.Error)) {
		return over // the whole guest ends, and its end is the call's
	}
	if err == nil {
		if result.Large = s.bodies.Sent(c.number); result.Large {
			output = nil
		}
		err = s.writer.Write(wire.TypeResult, c.number, result, output)
		if !errors.Is(err, wire.ErrTooLarge) {
			return err
		}
		err = fmt.Errorf("answer call: %w", err)
	}
	return s.writer.Write(wire.TypeFailure, c.number, cut(asError(err)), nil)
}

// maxMessage keeps an error well within the meta's limit, whatever JSON makes of its bytes.
const maxMessage = wire.MaxMeta / 8

func cut(err *wire.Error) *wire.Error {
	if len(err.Message) <= maxMessage {
		return err
	}
	shorter := *err
	shorter.Message = err.Message[:maxMessage]
	return &shorter
}

func (s *session) cancel(msg wire.Message) error {
	var meta wire.Cancel
	if err := msg.DecodeMeta(&meta); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel, ok := s.cancels[msg.Call]; ok {
		cancel(&wire.Error{Kind: meta.Kind, Message: "the call was ended from outside"})
	}
	return nil
}

// freeze makes the guest quiet: nothing is written after Frozen. Calls end by themselves; streams may never do.
func (s *session) freeze(ctx context.Context, empty <-chan struct{}) error {
	if s.serves {
		s.streams.CloseAll()
	}
	if err := wait(ctx, empty); err != nil {
		return err
	}
	if err := s.handler.freeze(ctx); err != nil {
		return s.fail(err)
	}
	debug.FreeOSMemory() // what the snapshot does not hold need not be thawed
	return s.writer.Write(wire.TypeFrozen, 0, nil, nil)
}

func (s *session) thawed(ctx context.Context) error {
	s.calls.open()
	if err := s.handler.thawed(ctx); err != nil {
		return s.fail(err)
	}
	return s.writer.Write(wire.TypeReady, 0, wire.Ready{Payloads: true}, nil)
}

func (s *session) drain(ctx context.Context, empty <-chan struct{}) error {
	if err := wait(ctx, empty); err != nil {
		return err
	}
	if err := s.handler.drain(ctx); err != nil {
		return err
	}
	if err := s.writer.Write(wire.TypeDrained, 0, nil, nil); err != nil {
		return err
	}
	return errDrained
}

// log sends a line to the host; one that cannot be sent is lost with the host.
func (s *session) log(number uint64, level, text string) {
	if err := s.writer.Write(wire.TypeLog, number, wire.Log{Time: time.Now(), Level: level}, []byte(text)); err != nil {
		s.end(err)
	}
}
