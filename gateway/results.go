package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/freshet-dev/freshet/internal/queue"
)

// resultsWindow is how many results of a batch are read at once.
const resultsWindow = queue.MaxLookup

// resultsRequest is what a request for the results of a batch asks for.
type resultsRequest struct {
	batch  queue.Batch
	from   int64
	follow bool
	status string
}

func (s *spawns) parseResults(r *http.Request) (resultsRequest, error) {
	var request resultsRequest
	query, err := parseQuery(r.URL.RawQuery, "from", "follow", "status")
	if err != nil {
		return request, err
	}
	if request.from, err = number(query, "from", 0, 0, queue.MaxInputs); err != nil {
		return request, err
	}
	request.follow, request.status = query.Get("follow") == "true", query.Get("status")
	known := []string{"", statusDone, statusFailed, statusCancelled}
	if !slices.Contains(known, request.status) {
		return request, badInput("query parameter status", request.status, "use one of "+strings.Join(known[1:], ", "))
	}
	request.batch, _, err = s.loadPath(r)
	return request, err
}

// handleBatchResults streams the results of a batch in the order of its inputs, as NDJSON: those that there are, and with follow=true
// those to come. Whoever loses the connection goes on from the next index.
func (s *spawns) handleBatchResults(w http.ResponseWriter, r *http.Request) {
	request, err := s.parseResults(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header()["Content-Type"] = []string{ndjson}
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(w, 32<<10)
	if err := errors.Join(s.streamResults(r.Context(), out, http.NewResponseController(w), request), out.Flush()); err != nil {
		s.exchange.log.Debug().Err(err).Str("batch", request.batch.ID).Msg("write results")
	}
}

func (s *spawns) streamResults(ctx context.Context, out *bufio.Writer, control *http.ResponseController, request resultsRequest) error {
	encoder, batch, end := json.NewEncoder(out), request.batch, mapEnd{Done: true, Batch: request.batch.ID}
	for next := request.from; ; {
		most := min(batch.Inputs, next+resultsWindow)
		results, err := s.loadResults(ctx, resultSubjects(batch.ID, next, most))
		if err != nil {
			return err
		}
		if next, err = request.write(encoder, results, next, most, &end); err != nil {
			return err
		}
		all := next >= batch.Inputs
		if all && (!batch.Open || !request.follow) {
			end.Inputs = batch.Inputs
			return encoder.Encode(end)
		}
		if next == most && !all {
			continue // more are there
		}
		if err := errors.Join(out.Flush(), control.Flush()); err != nil {
			return err
		}
		if batch, err = s.awaitInput(ctx, batch, next); err != nil {
			return err
		}
	}
}

// write writes the results that are wanted, up to the first that is missing and waited for, and returns the input that comes next.
func (q resultsRequest) write(encoder *json.Encoder, results map[string]queue.Result, next, most int64, end *mapEnd) (int64, error) {
	for ; next < most; next++ {
		result, ended := results[queue.CallOfInput(q.batch.ID, next)]
		if !ended {
			if q.follow {
				return next, nil
			}
			continue
		}
		if result.Error != nil {
			end.Failed++
		}
		if q.status != "" && q.status != statusWord(result) {
			continue
		}
		if err := encoder.Encode(newMapped(next, result)); err != nil {
			return next, err
		}
	}
	return max(next, most), nil
}

// awaitInput waits until an input has a result, or the batch may have one more input; it returns the batch as it then is.
func (s *spawns) awaitInput(ctx context.Context, batch queue.Batch, index int64) (queue.Batch, error) {
	wait := maxWait
	if index >= batch.Inputs {
		wait = lookEvery
	}
	if _, err := s.awaitStored(ctx, queue.CallOfInput(batch.ID, index), wait); err != nil && !errors.Is(err, queue.ErrNoResult) {
		return batch, err
	}
	if ctx.Err() != nil {
		return batch, ctx.Err()
	}
	return s.load(ctx, batch.ID)
}

func resultSubjects(batch string, from, to int64) []string {
	subjects := make([]string, 0, max(0, to-from))
	for index := from; index < to; index++ {
		subjects = append(subjects, queue.ResultSubject(queue.CallOfInput(batch, index)))
	}
	return subjects
}
