package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
)

// reconnectWait is the pause between attempts to reach NATS: short, because calls wait.
const reconnectWait = 100 * time.Millisecond

// connect begins to connect and does not wait for it: the sandbox starts meanwhile.
func (w *Worker) connect(ctx context.Context) error {
	nc, err := nats.Connect(w.task.NATS.URL,
		nats.UserInfo(w.task.NATS.User, w.task.NATS.Password),
		nats.Name("worker "+w.function.String()+" "+w.task.Identity.Alloc),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // a server that is being set up anew refuses for a while
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.PingInterval(10*time.Second),
		nats.SetCustomDialer(queue.Dialer{}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && ctx.Err() == nil {
				w.log.Warn().Err(err).Msg("lost NATS; reconnecting")
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			w.log.Warn().Err(err).Msg("NATS reports")
		}),
	)
	if err != nil {
		return fmt.Errorf("connect to NATS at %s: %w", w.task.NATS.URL, err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return fmt.Errorf("open jetstream: %w", err)
	}
	w.nc, w.js = nc, js
	return nil
}

// flushWait bounds how long the last words may take.
const flushWait = 2 * time.Second

func (w *Worker) flush() {
	if err := w.nc.FlushTimeout(flushWait); err != nil {
		w.log.Warn().Err(err).Msg("send the last words")
	}
}

// event records what happened to the worker.
func (w *Worker) event(e queue.Event) {
	e.Time, e.Alloc = time.Now(), w.task.Identity.Alloc
	data, err := e.Encode()
	if err == nil {
		err = w.nc.Publish(w.function.EventsSubject(e.Alloc), data)
	}
	if err != nil {
		w.log.Warn().Err(err).Str("kind", string(e.Kind)).Msg("publish event")
	}
	w.log.Info().Str("kind", string(e.Kind)).Bool("thawed", e.Thawed).Any("phases", e.Phases).Str("reason", e.Reason).Msg("worker")
}
