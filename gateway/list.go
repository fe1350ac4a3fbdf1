package gateway

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// maxList is the most entries of one page of a list, defaultList how many there are otherwise.
const (
	maxList     = 500
	defaultList = 100
)

// listRequest is what a request for a list asks for.
type listRequest struct {
	query  queue.Query
	status string
}

// functionOf reads the function that a list is to be of; an empty part of it stands for all.
func functionOf(query url.Values) (queue.Function, error) {
	f := queue.Function{Namespace: namespaceOf(query)}
	if f.Namespace != allNamespaces && !spec.ValidName(f.Namespace) {
		return f, badInput("query parameter namespace", f.Namespace, "name one namespace, or * for all")
	}
	if f.Namespace == allNamespaces {
		f.Namespace = ""
	}
	name := query.Get("function")
	if name == "" {
		return f, nil
	}
	f.App, f.Name, _ = strings.Cut(name, ".")
	for _, part := range []string{f.App, f.Name} {
		if strings.ContainsAny(part, ".*> ") {
			return f, badInput("query parameter function", name, "use APP or APP.FUNCTION")
		}
	}
	return f, nil
}

// parseList reads where a page begins and how long it is. The cursor of a page is the sequence of its end.
func parseList(query url.Values) (queue.Query, error) {
	var q queue.Query
	limit, err := number(query, "limit", defaultList, 1, maxList)
	if err != nil {
		return q, err
	}
	after, err := number(query, "after", 0, 0, math.MaxInt64-1)
	if err != nil {
		return q, err
	}
	q.Limit = int(limit)
	if after > 0 {
		q.From = uint64(after) + 1
		return q, nil
	}
	if text := query.Get("since"); text != "" {
		since, err := time.ParseDuration(text)
		if err != nil || since < 0 || since > maxSince {
			return q, badInput("query parameter since", text, "use a duration up to 168h, such as 10m")
		}
		q.Since = time.Now().Add(-since)
	}
	return q, nil
}

// listView is a page of a list. Next is the parameter after of the next page, empty on the last one.
type listView[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

func newListView[T any](page queue.Page) listView[T] {
	view := listView[T]{Items: []T{}} // an empty list in JSON, never null
	if last := len(page.Messages) - 1; last >= 0 && page.Pending > 0 {
		view.Next = strconv.FormatUint(page.Messages[last].Sequence, 10)
	}
	return view
}

// handleList lists what was spawned, the oldest first: calls and batches, of a function, since a time, with a status. A page may
// have fewer entries than asked for, and others after it.
func (s *spawns) handleList(w http.ResponseWriter, r *http.Request) {
	request, err := parseListRequest(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page, err := queue.Read(r.Context(), s.nc, request.query)
	if err != nil {
		s.refuse(w, r, unavailable("what was spawned cannot be read; try again", err))
		return
	}
	view := newListView[any](page)
	batches, results, err := s.loadPage(r.Context(), page)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	for _, batch := range batches {
		entry, status, err := s.entry(r.Context(), batch, results)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		if request.status == "" || request.status == status {
			view.Items = append(view.Items, entry)
		}
	}
	s.respond(w, http.StatusOK, view)
}

func parseListRequest(r *http.Request) (listRequest, error) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "function", "status", "since", "limit", "after")
	if err != nil {
		return listRequest{}, err
	}
	request := listRequest{status: query.Get("status")}
	known := []string{"", statusQueued, statusRunning, statusDone, statusFailed, statusCancelled, statusExpired}
	if !slices.Contains(known, request.status) {
		return request, badInput("query parameter status", request.status, "use one of "+strings.Join(known[1:], ", "))
	}
	function, err := functionOf(query)
	if err != nil {
		return request, err
	}
	if err := permit(r.Context(), function); err != nil {
		return request, err
	}
	if request.query, err = parseList(query); err != nil {
		return request, err
	}
	request.query.Stream, request.query.Subject = queue.BatchesStream, queue.BatchesOf(function)
	return request, nil
}

// loadPage reads the batches of a page, and the results of those with one input, all in one request.
func (s *spawns) loadPage(ctx context.Context, page queue.Page) ([]queue.Batch, map[string]queue.Result, error) {
	batches := make([]queue.Batch, 0, len(page.Messages))
	var subjects []string
	for _, msg := range page.Messages {
		batch, err := queue.ParseBatch(msg)
		if err != nil {
			return nil, nil, err
		}
		batches = append(batches, batch)
		if batch.Sequence > 0 {
			subjects = append(subjects, queue.ResultSubject(queue.CallOfInput(batch.ID, 0)))
		}
	}
	results, err := s.loadResults(ctx, subjects)
	return batches, results, err
}

// loadResults reads the results that are there, by call.
func (x *exchange) loadResults(ctx context.Context, subjects []string) (map[string]queue.Result, error) {
	results := make(map[string]queue.Result, len(subjects))
	if len(subjects) == 0 {
		return results, nil
	}
	page, err := queue.ReadLast(ctx, x.nc, queue.ResultsStream, subjects)
	if err != nil {
		return nil, unavailable("the results cannot be read; try again", err)
	}
	for _, msg := range page.Messages {
		result, err := queue.ParseResult(msg.Header, msg.Data)
		if err != nil {
			return nil, err
		}
		results[result.Call] = result
	}
	return results, nil
}

// entry is a call or a batch in a list, and its status.
func (s *spawns) entry(ctx context.Context, batch queue.Batch, results map[string]queue.Result) (any, string, error) {
	if batch.Sequence == 0 {
		view, err := s.viewBatch(ctx, batch)
		return view, view.Status, err
	}
	call := queue.CallOfInput(batch.ID, 0)
	view := viewCall(batch, call)
	if result, ended := results[call]; ended {
		view.end(result)
		view.Output = nil // a list says what there is, not what is in it
		return view, view.Status, nil
	}
	var err error
	view.Status, err = s.waitingStatus(ctx, batch, call)
	return view, view.Status, err
}
