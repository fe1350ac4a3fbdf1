package gateway

import (
	"errors"
	"net/http"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
)

// deadCalls shows calls that could not be done, and has them done after all.
type deadCalls struct{ *caller }

// deadView is a dead call as the API shows it.
type deadView struct {
	Call        string                `json:"call"`
	Namespace   string                `json:"namespace"`
	Function    string                `json:"function"`
	Method      string                `json:"method,omitempty"`
	Attempts    int                   `json:"attempts"`
	Kind        string                `json:"kind"`
	Message     string                `json:"message"`
	Died        time.Time             `json:"died"`
	InputSize   int64                 `json:"input_bytes"`
	ContentType string                `json:"content_type,omitempty"`
	Failed      []queue.FailedAttempt `json:"failed_attempts,omitempty"`
	Input       string                `json:"input_url"`
}

func viewDead(d queue.DeadCall) deadView {
	size := int64(len(d.Body))
	if d.Payload != nil {
		size = d.Payload.Size
	}
	return deadView{
		Call: d.Call, Namespace: d.Function.Namespace, Function: d.Function.App + "." + d.Function.Name, Method: d.Method,
		Attempts: d.Attempt, Kind: string(d.Reason.Kind), Message: d.Reason.Message, Died: d.Died, InputSize: size,
		ContentType: d.ContentType, Input: "/v1/dead/" + d.Call + "/input",
	}
}

// handleList lists the dead calls, the oldest first.
func (d *deadCalls) handleList(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "function", "since", "limit", "after")
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	function, err := functionOf(query)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	if err := permit(r.Context(), function); err != nil {
		d.refuse(w, r, err)
		return
	}
	q, err := parseList(query)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	q.Stream, q.Subject = queue.DeadStream, queue.DeadOf(function)
	page, err := queue.Read(r.Context(), d.nc, q)
	if err != nil {
		d.refuse(w, r, unavailable("the dead calls cannot be read; try again", err))
		return
	}
	view := newListView[deadView](page)
	for _, msg := range page.Messages {
		dead, err := queue.ParseDead(msg)
		if err != nil {
			d.refuse(w, r, err)
			return
		}
		view.Items = append(view.Items, viewDead(dead))
	}
	d.respond(w, http.StatusOK, view)
}

func (d *deadCalls) load(r *http.Request) (queue.DeadCall, error) {
	id, err := pathID(r)
	if err != nil {
		return queue.DeadCall{}, err
	}
	dead, err := queue.LoadDead(r.Context(), d.nc, id)
	if errors.Is(err, queue.ErrNotDead) {
		return dead, &problem{Kind: kindNotFound, Message: "no dead call " + id + ": it did not fail, was replayed or removed, or its time is over"}
	}
	if err != nil {
		return dead, unavailable("the dead call cannot be read; try again", err)
	}
	return dead, permit(r.Context(), dead.Function)
}

// handleDead shows a dead call with the reason of each attempt.
func (d *deadCalls) handleDead(w http.ResponseWriter, r *http.Request) {
	dead, err := d.load(r)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	view := viewDead(dead)
	if view.Failed, err = queue.LoadAttempts(r.Context(), d.nc, dead.Call, dead.Attempt); err != nil {
		d.refuse(w, r, unavailable("the call's attempts cannot be read; try again", err))
		return
	}
	d.respond(w, http.StatusOK, view)
}

// handleInput answers with a dead call's input.
func (d *deadCalls) handleInput(w http.ResponseWriter, r *http.Request) {
	dead, err := d.load(r)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	d.answer(w, r, queue.Result{Call: dead.Call, Attempt: dead.Attempt, ContentType: dead.ContentType, Body: dead.Body, Payload: dead.Payload})
}

// handleReplay puts a dead call back into its queue.
func (d *deadCalls) handleReplay(w http.ResponseWriter, r *http.Request) {
	dead, err := d.load(r)
	if err == nil {
		_, err = d.find(dead.Function.Namespace, dead.Function.App, dead.Function.Name)
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	if err := d.payloads.again(r.Context(), dead); err != nil {
		d.refuse(w, r, err)
		return
	}
	if err := dead.Replay(r.Context(), d.js); err != nil {
		d.refuse(w, r, publishProblem(err))
		return
	}
	d.hintDemand(dead.Function, d.metrics.of(dead.Function), time.Now())
	d.respond(w, http.StatusAccepted, spawnView{Call: dead.Call, Status: statusQueued, URL: "/v1/calls/" + dead.Call})
}

// handleForget removes a dead call.
func (d *deadCalls) handleForget(w http.ResponseWriter, r *http.Request) {
	dead, err := d.load(r)
	if err == nil {
		err = dead.Forget(r.Context(), d.js)
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
