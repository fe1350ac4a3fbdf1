package freshet

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

type contextKey struct{}

// call is what a context knows of its call.
type call struct {
	guest   *guest
	id      string
	attempt int
	number  uint64
}

func (g *guest) context(ctx context.Context, id string, attempt int, number uint64) context.Context {
	return context.WithValue(ctx, contextKey{}, call{guest: g, id: id, attempt: attempt, number: number})
}

// timed is a context that knows when its call will be ended, and leaves the ending to the host: it sends a cancel at that
// time, and a timer in the guest would wake another of its threads for each call.
type timed struct {
	context.Context

	deadline time.Time
}

// Deadline is when the host ends the call.
func (t timed) Deadline() (time.Time, bool) { return t.deadline, !t.deadline.IsZero() }

func from(ctx context.Context) call {
	c, _ := ctx.Value(contextKey{}).(call)
	return c
}

// CallID is the id of the call that the context belongs to; empty outside of one.
func CallID(ctx context.Context) string { return from(ctx).id }

// Attempt is which attempt of the call this is, from 1; 0 outside of a call.
func Attempt(ctx context.Context) int { return from(ctx).attempt }

// Worker is the identity of the worker that runs the call. It differs between the copies of a snapshot.
func Worker(ctx context.Context) wire.Identity {
	g := from(ctx).guest
	if g == nil {
		return wire.Identity{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.identity
}

// Logger writes log lines that `freshet logs` shows with their call. Outside of a worker it writes to standard error.
func Logger(ctx context.Context) *slog.Logger {
	c := from(ctx)
	if c.guest == nil {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(&logHandler{call: c, text: slog.NewTextHandler(&lineWriter{c}, textOptions())})
}

// textOptions leaves out what the log record says anyway.
func textOptions() *slog.HandlerOptions {
	return &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && attr.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return attr
	}}
}

// logHandler is the standard text handler, whose lines become log frames.
type logHandler struct {
	call call
	text slog.Handler
}

func (h *logHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	return h.text.Handle(ctx, record)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{call: h.call, text: h.text.WithAttrs(attrs)}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{call: h.call, text: h.text.WithGroup(name)}
}

// lineWriter sends each line that the text handler writes.
type lineWriter struct{ call call }

func (w *lineWriter) Write(line []byte) (int, error) {
	text := strings.TrimSuffix(string(line), "\n")
	level, rest, _ := strings.Cut(strings.TrimPrefix(text, "level="), " ")
	if err := w.call.guest.log(w.call.number, strings.ToLower(level), rest); err != nil {
		return 0, err
	}
	return len(line), nil
}
