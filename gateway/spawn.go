package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
)

// spawns takes calls whose results are fetched later, and shows what became of them.
type spawns struct {
	*caller

	callbacks *callbacks
}

// spawnView is the answer to a spawn.
type spawnView struct {
	Call   string `json:"call"`
	Status string `json:"status"`
	URL    string `json:"url"`
}

// handleSpawn takes a call and answers with its address once the queue has it.
func (s *spawns) handleSpawn(w http.ResponseWriter, r *http.Request) {
	t, err := s.prepareOne(r, "stream")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	call, err := s.spawn(w, r, t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	h := w.Header()
	h["Freshet-Call"] = []string{call}
	h["Location"] = []string{"/v1/calls/" + call}
	s.respond(w, http.StatusAccepted, spawnView{Call: call, Status: statusQueued, URL: "/v1/calls/" + call})
}

// spawn puts the call into the queue and records it.
func (s *spawns) spawn(w http.ResponseWriter, r *http.Request, t target) (string, error) {
	buffer := s.buffers.get()
	defer s.buffers.put(buffer)
	e := t.spawned()
	e.Stream, e.Call = t.header.query.Get("stream") == "true", queue.CallOfInput(queue.NewBatch(t.began), 0)
	large, err := s.payloads.read(w, r, &e, buffer)
	if err != nil {
		return "", err
	}
	stores, err := s.connected()
	if err != nil {
		return "", err
	}
	if err := t.stats.admit(t.function.MaxPending); err != nil {
		return "", err
	}
	if e.Callback = first(r.Header, "Freshet-Callback"); e.Callback != "" {
		if err := s.callbacks.check(e.Callback); err != nil {
			return "", err
		}
	}
	if large {
		if err := s.payloads.keep(w, r, &e); err != nil {
			return "", err
		}
		stamp(&e)
	}
	if e.IdempotencyKey != "" {
		known, err := s.claim(r.Context(), stores, keyName(t.key, e.IdempotencyKey), &e, e.Call)
		if err != nil {
			return "", err
		}
		if known {
			_, err := queue.LoadBatch(r.Context(), s.nc, e.Call)
			if err == nil {
				return e.Call, nil // the first request was answered, or nearly so
			}
			e.Again = true
		}
	}
	s.hintDemand(t.key, t.stats, t.began)
	err = s.publishSpawned(r.Context(), e, t, insist)
	if err != nil && asProblem(err).Kind == kindQueueFull {
		s.payloads.discard(r.Context(), e.Payload)
	}
	return e.Call, err
}

// publish puts a message into its stream.
type publish func(ctx context.Context, x *exchange, msg *nats.Msg) (*jetstream.PubAck, error)

// once publishes, for those who come back to what was not taken with what they know then.
func once(ctx context.Context, x *exchange, msg *nats.Msg) (*jetstream.PubAck, error) {
	return x.js.PublishMsg(ctx, msg)
}

func (s *spawns) publishSpawned(ctx context.Context, e queue.Envelope, t target, publish publish) error {
	msg, err := e.Message()
	if err != nil {
		return badInput("request", t.key.String(), err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, takeWithin)
	defer cancel()
	ack, err := publish(ctx, s.exchange, msg)
	if err != nil {
		return publishProblem(err)
	}
	t.stats.published.Inc()
	batch := queue.Batch{
		ID: queue.BatchOf(e.Call), Function: t.key, Inputs: 1, Spawned: t.began, Keep: e.Keep, Sequence: ack.Sequence,
	}
	if err := batch.Save(ctx, s.js); err != nil {
		return unavailable("the call is queued but was not recorded; try again with an Idempotency-Key", err)
	}
	return nil
}

// publishProblem says why the queue did not take a call.
func publishProblem(err error) error {
	var refused *jetstream.APIError
	switch {
	case errors.As(err, &refused):
		return refusal(refused)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return unavailable("the queue is not there; try again", err)
	}
	return unavailable("the queue did not confirm the call; try again, with an Idempotency-Key to run it once", err)
}
