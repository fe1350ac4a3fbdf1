package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// pathID reads the id of a call or a batch out of the request's path.
func pathID(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if err := queue.CheckID(id); err != nil {
		return "", badInput("id", id, "use the id that the call or the batch was answered with")
	}
	return id, nil
}

// cancelCall ends a call wherever it is. Its result is stored first, so that whatever a worker still makes of it comes too late;
// then workers are told. It returns the result that stands: another one when the call had ended before.
func (x *exchange) cancelCall(ctx context.Context, function queue.Function, call, why string) (queue.Result, error) {
	stands, err := queue.End(ctx, x.js, queue.Result{
		Call: call, Keep: keepKeyed, Error: &wire.Error{Kind: wire.KindCancelled, Message: "the call was cancelled: " + why},
	})
	if err != nil {
		return stands, unavailable("the call could not be cancelled; try again", err)
	}
	if stands.Error == nil || stands.Error.Kind != wire.KindCancelled {
		return stands, nil
	}
	if err := queue.Cancel(ctx, x.js, function, call); err != nil {
		return stands, unavailable("the call is cancelled, but its worker was not told; try again", err)
	}
	return stands, nil
}

// load finds a batch, by its own id or that of one of its calls.
func (x *exchange) load(ctx context.Context, id string) (queue.Batch, error) {
	batch, err := queue.LoadBatch(ctx, x.nc, id)
	return batch, x.batchProblem(id, err)
}

// latest finds a batch for those who change its record.
func (x *exchange) latest(ctx context.Context, id string) (queue.Batch, error) {
	batch, err := queue.LoadBatch(ctx, x.nc, id)
	if err == nil {
		batch, err = batch.Latest(ctx, x.nc)
	}
	return batch, x.batchProblem(id, err)
}

func (x *exchange) batchProblem(id string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, queue.ErrNoBatch):
		return x.keep.unknown(id, "nothing is known of "+id)
	}
	return unavailable("what was spawned cannot be read; try again", err)
}

// handleCancel cancels a spawned call, waiting or running. It can be repeated; a call that ended before is a conflict.
func (s *spawns) handleCancel(w http.ResponseWriter, r *http.Request) {
	batch, id, err := s.loadPath(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	stands, err := s.cancelCall(r.Context(), batch.Function, id, "somebody asked for it")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if stands.Error == nil || stands.Error.Kind != wire.KindCancelled {
		s.refuse(w, r, &problem{Kind: kindConflict, Message: "call " + id + " has ended before: it is " + statusWord(stands)})
		return
	}
	s.respond(w, http.StatusOK, map[string]string{"call": id, "status": statusCancelled})
}

// handleCancelBatch cancels all calls of a batch that have not ended: waiting ones end without having run.
func (s *spawns) handleCancelBatch(w http.ResponseWriter, r *http.Request) {
	batch, id, err := s.loadPath(r)
	if err == nil {
		batch, err = s.latest(r.Context(), batch.ID)
	}
	if err == nil {
		err = s.cancelBatch(r.Context(), batch)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.respond(w, http.StatusOK, map[string]string{"batch": id, "status": statusCancelled})
}

// cancelBatch cancels a batch whose record is the latest.
func (x *exchange) cancelBatch(ctx context.Context, batch queue.Batch) error {
	err := queue.Cancel(ctx, x.js, batch.Function, batch.ID)
	if err == nil && batch.Cancelled.IsZero() {
		batch.Cancelled, batch.Open = time.Now(), false
		err = batch.Save(ctx, x.js)
	}
	if err != nil {
		return unavailable("the batch could not be cancelled; try again", err)
	}
	return nil
}

// loadPath finds the batch of the id in the request's path, which is a call's or the batch's own.
func (s *spawns) loadPath(r *http.Request) (queue.Batch, string, error) {
	id, err := pathID(r)
	if err != nil {
		return queue.Batch{}, id, err
	}
	batch, err := s.load(r.Context(), id)
	if err != nil {
		return batch, id, err
	}
	if err := permit(r.Context(), batch.Function); err != nil {
		return batch, id, err
	}
	if input := queue.InputOf(id); input >= batch.Inputs && !batch.Open {
		return batch, id, &problem{Kind: kindNotFound, Message: "batch " + batch.ID + " has no input of call " + id}
	}
	return batch, id, nil
}
