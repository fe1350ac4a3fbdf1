package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/execwire"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// execs run commands in workers, and in sandboxes like theirs, for people whom the way there is shut to but for the gateway.
type execs struct {
	*exchange
	responder
	directory

	jobs Jobs
}

// execRequest is what a request for a command says.
type execRequest struct {
	command []string
	tty     bool
	size    api.TerminalSize
	fresh   bool
}

func parseExec(query url.Values) (execRequest, error) {
	var r execRequest
	text := query.Get("command")
	if err := json.Unmarshal([]byte(text), &r.command); err != nil || len(r.command) == 0 || r.command[0] == "" {
		return r, badInput("query parameter command", text, `write a program and its arguments as JSON, such as ["ls","-l"]`)
	}
	for name, into := range map[string]*bool{"tty": &r.tty, "fresh": &r.fresh} {
		if given := query.Get(name); given != "" {
			yes, err := strconv.ParseBool(given)
			if err != nil {
				return r, badInput("query parameter "+name, given, "use true or false")
			}
			*into = yes
		}
	}
	for name, into := range map[string]*int{"rows": &r.size.Height, "columns": &r.size.Width} {
		if given := query.Get(name); given != "" {
			number, err := strconv.ParseUint(given, 10, 16)
			if err != nil {
				return r, badInput("query parameter "+name, given, "use a number of characters, at most 65535")
			}
			*into = int(number)
		}
	}
	return r, nil
}

// handleWorkerExec runs a command in a worker, which a prefix of its id names.
func (x *execs) handleWorkerExec(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "command", "tty", "rows", "columns")
	if err != nil {
		x.refuse(w, r, err)
		return
	}
	request, err := parseExec(query)
	if err != nil {
		x.refuse(w, r, err)
		return
	}
	beat, err := x.workers.find(r.Context(), r.PathValue("id"))
	if err != nil {
		x.refuse(w, r, err)
		return
	}
	x.serve(w, r, request, func(s *execSession) error { return x.inWorker(s, beat.Namespace, beat.Alloc, false) })
}

// handleFunctionExec runs a command in one of a function's workers, or in a fresh sandbox where there is none or one is wanted.
func (x *execs) handleFunctionExec(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "command", "tty", "rows", "columns", "fresh")
	if err != nil {
		x.refuse(w, r, err)
		return
	}
	request, err := parseExec(query)
	if err != nil {
		x.refuse(w, r, err)
		return
	}
	function, err := x.find(namespaceOf(query), r.PathValue("app"), r.PathValue("function"))
	if err != nil {
		x.refuse(w, r, err)
		return
	}
	x.serve(w, r, request, func(s *execSession) error {
		if !request.fresh {
			for _, beat := range x.workers.list(function.Namespace, function.App, function.Name) {
				if takesCalls(beat.State) {
					return x.inWorker(s, beat.Namespace, beat.Alloc, false)
				}
			}
		}
		return x.jobs.Sandbox(s.ctx, function, func(alloc string) error { return x.inWorker(s, function.Namespace, alloc, true) })
	})
}

// serve carries a session over a WebSocket from its begin to its end.
func (x *execs) serve(w http.ResponseWriter, r *http.Request, request execRequest, run func(*execSession) error) {
	if r.Header.Get("Upgrade") == "" {
		x.refuse(w, r, badInput("header Upgrade", "", "ask for a WebSocket: this is a terminal's stream"))
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	s := newExecSession(r.Context(), conn, request)
	defer s.end()
	s.work.Go(s.receive)
	s.work.Go(s.keepAlive)
	s.work.Go(func() {
		select {
		case <-x.stopped:
			s.cancel(errors.New("the gateway stops"))
		case <-s.ctx.Done():
		}
	})
	err = run(s)
	if err != nil && s.ctx.Err() == nil {
		x.exchange.log.Debug().Err(err).Str("path", r.URL.Path).Msg("command in a worker")
		p := asProblem(err)
		var fault *wire.Error
		if errors.As(err, &fault) {
			p = ended(fault)
		}
		s.tell(execwire.Message{Error: &wire.Error{Kind: p.Kind, Message: p.Message}})
	}
}

// inWorker runs the session's command in an allocation.
func (x *execs) inWorker(s *execSession, namespace, alloc string, fresh bool) error {
	s.tell(execwire.Message{Worker: alloc, Fresh: fresh})
	code, err := x.jobs.Exec(s.ctx, jobs.Exec{
		Alloc: alloc, Namespace: namespace, Command: s.request.command, TTY: s.request.tty, Sizes: s.sizes,
		Stdin: s.stdin, Stdout: s.stream(execwire.Stdout), Stderr: s.stream(execwire.Stderr),
	})
	if err != nil {
		return err
	}
	s.tell(execwire.Message{Exit: &code})
	return nil
}

// execSession is a command and whoever watches it.
type execSession struct {
	request execRequest
	conn    *websocket.Conn
	ctx     context.Context
	cancel  context.CancelCauseFunc
	work    sync.WaitGroup

	stdin *io.PipeReader
	typed *io.PipeWriter
	sizes chan api.TerminalSize
	// full says that the command does not read what was typed, so that nothing of the connection is read either.
	full atomic.Bool
}

func newExecSession(ctx context.Context, conn *websocket.Conn, request execRequest) *execSession {
	s := &execSession{request: request, conn: conn, sizes: make(chan api.TerminalSize, 1)}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.stdin, s.typed = io.Pipe()
	if request.tty && request.size.Height > 0 && request.size.Width > 0 {
		s.sizes <- request.size
	}
	conn.SetReadLimit(execwire.MaxMessage)
	return s
}

// end closes the connection, which ends what still waits for it.
func (s *execSession) end() {
	_ = s.stdin.CloseWithError(io.ErrClosedPipe) // never fails
	s.cancel(errors.New("the command has ended"))
	_ = s.conn.Close(websocket.StatusNormalClosure, "") // whoever watched may be gone
	s.work.Wait()
}

// receive takes what is typed, and sizes, until the connection ends: then the command does too.
func (s *execSession) receive() {
	for {
		kind, data, err := s.conn.Read(context.WithoutCancel(s.ctx)) // ends with the connection: a context would tear it before the last word
		if err != nil {
			s.cancel(fmt.Errorf("whoever watched is gone: %w", err))
			_ = s.typed.CloseWithError(io.ErrUnexpectedEOF) // never fails
			return
		}
		if kind == websocket.MessageBinary {
			s.full.Store(true)
			_, _ = s.typed.Write(data) // a command that has ended reads no more
			s.full.Store(false)
			continue
		}
		var message execwire.Message
		if err := json.Unmarshal(data, &message); err != nil {
			continue // of a later release
		}
		if message.End {
			_ = s.typed.Close() // never fails
		}
		if size := message.Size; size != nil {
			select {
			case s.sizes <- api.TerminalSize{Height: int(size.Rows), Width: int(size.Columns)}:
			case <-s.ctx.Done():
			}
		}
	}
}

// How often a connection is tried, and how long it may take to answer.
const (
	execPing = 15 * time.Second
	execPong = 15 * time.Second
)

// keepAlive notices that a connection is dead, and keeps proxies from thinking so.
func (s *execSession) keepAlive() {
	ticker := time.NewTicker(execPing)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
		if s.full.Load() {
			continue // whoever watched could not answer for all that waits to be sent
		}
		ctx, cancel := context.WithTimeout(s.ctx, execPong)
		err := s.conn.Ping(ctx)
		cancel()
		if err != nil {
			s.cancel(fmt.Errorf("whoever watched is gone: %w", err))
			return
		}
	}
}

func (s *execSession) tell(message execwire.Message) {
	data, err := json.Marshal(message)
	if err != nil {
		return // it is always JSON
	}
	_ = s.conn.Write(s.ctx, websocket.MessageText, data) // the reader notices that whoever watched is gone
}

// execStream is one of the command's outputs.
type execStream struct {
	session *execSession
	name    byte
}

func (s *execSession) stream(name byte) execStream { return execStream{s, name} }

// Write implements io.Writer.
func (o execStream) Write(data []byte) (int, error) {
	message := append([]byte{o.name}, data...)
	if err := o.session.conn.Write(o.session.ctx, websocket.MessageBinary, message); err != nil {
		return 0, fmt.Errorf("pass on output: %w", err)
	}
	return len(data), nil
}

// minPrefix is how much of a worker's id must be given: what lists show of it.
const minPrefix = 4

// find finds the live worker whose id begins so, among those that the request may touch.
func (t *workers) find(ctx context.Context, prefix string) (queue.Heartbeat, error) {
	var found []queue.Heartbeat
	if len(prefix) >= minPrefix {
		for _, beat := range t.list(allNamespaces, "", "") {
			if len(beat.Alloc) >= len(prefix) && beat.Alloc[:len(prefix)] == prefix && permit(ctx, beat.Key()) == nil {
				found = append(found, beat)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return queue.Heartbeat{}, &problem{Kind: kindNotFound, Message: fmt.Sprintf("no live worker has an id that begins with %q, of at least %d characters", prefix, minPrefix)}
	}
	return queue.Heartbeat{}, &problem{Kind: kindConflict, Message: fmt.Sprintf("%d workers have ids that begin with %q: give more of it", len(found), prefix)}
}
