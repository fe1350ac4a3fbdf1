package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// What a call or a batch is, in a word.
const (
	statusQueued    = "queued"
	statusRunning   = "running"
	statusDone      = "done"
	statusFailed    = "failed"
	statusCancelled = "cancelled"
	statusExpired   = "expired" // its result's time is over
)

// maxWait is the longest that a request may wait for a call's end: proxies cut off what takes longer.
const maxWait = 150 * time.Second

// callView is a spawned call as the API shows it.
type callView struct {
	Call      string    `json:"call"`
	Namespace string    `json:"namespace"`
	Function  string    `json:"function"`
	Status    string    `json:"status"`
	Batch     string    `json:"batch"`
	Input     int64     `json:"input"`
	Spawned   time.Time `json:"spawned"`
	// Worker, Attempt and the times in seconds are of the attempt that ended the call.
	Worker  string  `json:"worker,omitempty"`
	Attempt int     `json:"attempt,omitempty"`
	Queued  float64 `json:"queue_seconds,omitempty"`
	Started float64 `json:"start_seconds,omitempty"`
	Run     float64 `json:"run_seconds,omitempty"`
	// Output is JSON as the function wrote it, or text as a JSON string; neither is shown where it is binary.
	ContentType string          `json:"content_type,omitempty"`
	Output      json.RawMessage `json:"output,omitempty"`
	// OutputBytes is the size of an output that is too large to be shown: it is at OutputURL.
	OutputBytes int64       `json:"output_bytes,omitempty"`
	OutputURL   string      `json:"output_url,omitempty"`
	Error       *wire.Error `json:"error,omitempty"`
	// Waits is why a queued call has no worker, where that is known.
	Waits []string `json:"waits_for,omitempty"`
	// Failed are the attempts that failed.
	Failed []queue.FailedAttempt `json:"failed_attempts,omitempty"`
	Result string                `json:"result_url"`
}

func statusWord(r queue.Result) string {
	switch {
	case r.Error == nil:
		return statusDone
	case r.Error.Kind == wire.KindCancelled:
		return statusCancelled
	}
	return statusFailed
}

func viewCall(batch queue.Batch, call string) callView {
	return callView{
		Call: call, Namespace: batch.Function.Namespace, Function: batch.Function.App + "." + batch.Function.Name, Batch: batch.ID,
		Input: queue.InputOf(call), Spawned: batch.Spawned, Status: statusQueued, Result: "/v1/calls/" + call + "/result",
	}
}

// end completes the view of a call that ended.
func (v *callView) end(r queue.Result) {
	v.Status, v.Worker, v.Attempt, v.Error = statusWord(r), r.Worker, r.Attempt, r.Error
	v.Queued, v.Started, v.Run = r.Queued.Seconds(), r.Started.Seconds(), r.Run.Seconds()
	v.ContentType, v.Output = r.ContentType, asJSON(r)
	v.OutputBytes, v.OutputURL = outputSize(r), outputURL(r)
}

// asJSON is an output within JSON; nil when it is binary.
func asJSON(r queue.Result) json.RawMessage {
	switch {
	case len(r.Body) == 0:
		return nil
	case strings.HasPrefix(r.ContentType, "application/json") && json.Valid(r.Body):
		return r.Body
	case strings.HasPrefix(r.ContentType, "text/"):
		text, err := json.Marshal(string(r.Body))
		if err == nil {
			return text
		}
	}
	return nil
}

// parseWait reads how long a request wants to wait.
func parseWait(query url.Values) (time.Duration, error) {
	text := query.Get("wait")
	if text == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 || wait > maxWait {
		return 0, badInput("query parameter wait", text, "use a duration up to "+maxWait.String()+", such as 30s")
	}
	return wait, nil
}

// handleCallView shows a spawned call, and waits for its end where that is wanted.
func (s *spawns) handleCallView(w http.ResponseWriter, r *http.Request) {
	batch, id, wait, err := s.parseInspect(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	view := viewCall(batch, id)
	result, err := s.awaitStored(r.Context(), id, wait)
	switch {
	case err == nil:
		view.end(result)
	case errors.Is(err, queue.ErrNoResult):
		if view.Status, err = s.waitingStatus(r.Context(), batch, id); err != nil {
			s.refuse(w, r, err)
			return
		}
		if view.Status == statusQueued {
			view.Waits = starts{s.exchange}.reasons(r.Context(), batch.Function)
		}
	default:
		s.refuse(w, r, err)
		return
	}
	if result.Error != nil || result.Attempt > 1 || view.Status == statusRunning {
		made := max(result.Attempt-1, 0)
		if view.Failed, err = queue.LoadAttempts(r.Context(), s.nc, id, made); err != nil {
			s.refuse(w, r, unavailable("the call's attempts cannot be read; try again", err))
			return
		}
	}
	s.respond(w, http.StatusOK, view)
}

// handleResult answers as the call itself would have been: with its output or its error. While it has none the answer is 202, or
// 303 to the same address where the request follows such.
func (s *spawns) handleResult(w http.ResponseWriter, r *http.Request) {
	batch, id, wait, err := s.parseInspect(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	result, err := s.awaitStored(r.Context(), id, wait)
	if err == nil {
		s.answer(w, r, result)
		return
	}
	if !errors.Is(err, queue.ErrNoResult) {
		s.refuse(w, r, err)
		return
	}
	status, err := s.waitingStatus(r.Context(), batch, id)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if status == statusExpired {
		s.refuse(w, r, &problem{Kind: kindGone, Message: "the result of call " + id + " was kept for its time, which is over"})
		return
	}
	s.notYet(w, r, id, status)
}

// notYet answers that a call has not ended: 303 sends those who follow it back to wait on.
func (c *caller) notYet(w http.ResponseWriter, r *http.Request, call, status string) {
	h := w.Header()
	h["Freshet-Call"] = []string{call}
	if r.URL.Query().Get("redirect") == "true" {
		h.Set("Location", "/v1/calls/"+call+"/result?redirect=true&wait="+maxWait.String())
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	h.Set("Retry-After", "1")
	c.respond(w, http.StatusAccepted, spawnView{Call: call, Status: status, URL: "/v1/calls/" + call})
}

func (s *spawns) parseInspect(r *http.Request) (queue.Batch, string, time.Duration, error) {
	query, err := parseQuery(r.URL.RawQuery, "wait", "redirect")
	if err != nil {
		return queue.Batch{}, "", 0, err
	}
	wait, err := parseWait(query)
	if err != nil {
		return queue.Batch{}, "", 0, err
	}
	batch, id, err := s.loadPath(r)
	if err == nil && queue.InputOf(id) < 0 {
		err = badInput("id", id, "this is a batch: use /v1/batches/"+id+", or the id of one of its calls")
	}
	return batch, id, wait, err
}

// awaitStored waits until the call's result is stored, whichever gateway it was called through. It returns queue.ErrNoResult when
// the time is over.
func (x *exchange) awaitStored(ctx context.Context, call string, wait time.Duration) (queue.Result, error) {
	stores, err := x.connected()
	if err != nil {
		return queue.Result{}, err
	}
	result, err := queue.LoadResultFrom(ctx, stores.results, call)
	if wait == 0 || !errors.Is(err, queue.ErrNoResult) {
		return result, readProblem(err)
	}
	stored := make(chan struct{}, 1)
	sub, err := x.nc.Subscribe(queue.ResultSubject(call), func(*nats.Msg) {
		select {
		case stored <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return queue.Result{}, unavailable("the queue cannot be reached; try again", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		result, err := queue.LoadResultFrom(ctx, stores.results, call)
		if !errors.Is(err, queue.ErrNoResult) {
			return result, readProblem(err)
		}
		select {
		case <-stored:
			if result, ok := x.loadSoon(ctx, call); ok {
				return result, nil
			}
		case <-time.After(lookEvery): // a word that was lost
		case <-over.C:
			return queue.Result{}, queue.ErrNoResult
		case <-ctx.Done():
			return queue.Result{}, queue.ErrNoResult
		case <-x.stopped:
			return queue.Result{}, unavailable("this gateway stops; ask again", nil)
		}
	}
}

func readProblem(err error) error {
	if err == nil || errors.Is(err, queue.ErrNoResult) {
		return err
	}
	return unavailable("the call's result cannot be read; try again", err)
}

// waitingStatus tells what a call is that has no result. It runs when its function's workers were given it.
func (s *spawns) waitingStatus(ctx context.Context, batch queue.Batch, call string) (string, error) {
	if !batch.Cancelled.IsZero() {
		return statusCancelled, nil
	}
	if batch.Sequence == 0 {
		return statusQueued, nil // one of many: its place in the queue was not written down
	}
	stream, err := s.js.Stream(ctx, batch.Function.CallsStream())
	if err != nil {
		return "", unavailable("the queue cannot be read; try again", err)
	}
	_, err = stream.GetMsg(ctx, batch.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		_, err := queue.LoadResult(ctx, s.js, call)
		switch {
		case err == nil:
			return statusRunning, nil // it ended between the two looks
		case errors.Is(err, queue.ErrNoResult):
			return statusExpired, nil
		}
		return "", readProblem(err)
	}
	if err != nil {
		return "", unavailable("the queue cannot be read; try again", err)
	}
	consumer, err := stream.Consumer(ctx, batch.Function.Consumer())
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return statusQueued, nil
	}
	if err != nil {
		return "", unavailable("the queue cannot be read; try again", err)
	}
	if consumer.CachedInfo().Delivered.Stream >= batch.Sequence {
		return statusRunning, nil
	}
	return statusQueued, nil
}

// batchView is a batch as the API shows it.
type batchView struct {
	Batch     string    `json:"batch"`
	Namespace string    `json:"namespace"`
	Function  string    `json:"function"`
	Status    string    `json:"status"`
	Inputs    int64     `json:"inputs"`
	Open      bool      `json:"open,omitempty"`
	Finished  int64     `json:"finished"`
	Spawned   time.Time `json:"spawned"`
	Results   string    `json:"results_url"`
}

func (s *spawns) viewBatch(ctx context.Context, batch queue.Batch) (batchView, error) {
	finished, err := queue.Count(ctx, s.nc, queue.ResultsStream, queue.BatchResults(batch.ID))
	if err != nil {
		return batchView{}, unavailable("the results cannot be counted; try again", err)
	}
	view := batchView{
		Batch: batch.ID, Namespace: batch.Function.Namespace, Function: batch.Function.App + "." + batch.Function.Name,
		Status: statusRunning, Inputs: batch.Inputs, Open: batch.Open, Finished: int64(finished), Spawned: batch.Spawned,
		Results: "/v1/batches/" + batch.ID + "/results",
	}
	switch {
	case !batch.Cancelled.IsZero():
		view.Status = statusCancelled
	case !batch.Open && view.Finished >= view.Inputs:
		view.Status = statusDone
	}
	return view, nil
}

// handleBatch shows a batch.
func (s *spawns) handleBatch(w http.ResponseWriter, r *http.Request) {
	batch, _, err := s.loadPath(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	view, err := s.viewBatch(r.Context(), batch)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.respond(w, http.StatusOK, view)
}

// number reads a whole number of a query, within bounds; otherwise where it is not there.
func number(query url.Values, name string, otherwise, least, most int64) (int64, error) {
	text := query.Get(name)
	if text == "" {
		return otherwise, nil
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil || value < least || value > most {
		return 0, badInput("query parameter "+name, text, "use "+decimal(least)+" to "+decimal(most))
	}
	return value, nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
