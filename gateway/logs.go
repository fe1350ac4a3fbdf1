package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	// maxTail is the most old lines that a request may ask for, defaultTail how many it gets otherwise.
	maxTail     = 100_000
	defaultTail = 1000
	// maxSince is how far back the log stream goes.
	maxSince = 7 * 24 * time.Hour
	// logBatch is how many lines are read ahead, logWait how long a read waits for one that is there.
	logBatch = 500
	logWait  = time.Second
)

// logRequest is what a request for logs asks for.
type logRequest struct {
	function queue.Function
	follow   bool
	since    time.Duration
	tail     int
	call     string
}

func parseLogRequest(query url.Values, function spec.Function) (logRequest, error) {
	request := logRequest{
		function: queue.Function{Namespace: function.Namespace, App: function.App, Name: function.Name},
		follow:   query.Get("follow") == "true",
		since:    time.Hour, tail: defaultTail, call: query.Get("call"),
	}
	if text := query.Get("since"); text != "" {
		since, err := time.ParseDuration(text)
		if err != nil || since < 0 || since > maxSince {
			return request, badInput("query parameter since", text, "use a duration up to 168h, such as 10m")
		}
		request.since = since
	}
	if text := query.Get("tail"); text != "" {
		tail, err := strconv.Atoi(text)
		if err != nil || tail < 0 || tail > maxTail {
			return request, badInput("query parameter tail", text, "use 0 to "+strconv.Itoa(maxTail))
		}
		request.tail = tail
	}
	return request, nil
}

// logReader reads what functions and their workers wrote.
type logReader struct {
	responder
	directory

	js jetstream.JetStream
}

// handleLogs streams a function's log lines as NDJSON: the last ones, and with follow=true those to come.
func (l *logReader) handleLogs(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "follow", "since", "tail", "call")
	if err != nil {
		l.refuse(w, r, err)
		return
	}
	function, err := l.find(namespaceOf(query), r.PathValue("app"), r.PathValue("function"))
	if err != nil {
		l.refuse(w, r, err)
		return
	}
	request, err := parseLogRequest(query, function)
	if err != nil {
		l.refuse(w, r, err)
		return
	}
	consumer, err := l.openLogs(r.Context(), request)
	if err != nil {
		l.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	if err := streamLogs(r.Context(), w, consumer, request); err != nil && r.Context().Err() == nil {
		l.log.Warn().Err(err).Msg("stream logs")
	}
}

func (l *logReader) openLogs(ctx context.Context, request logRequest) (jetstream.Consumer, error) {
	from := time.Now().Add(-request.since)
	consumer, err := l.js.OrderedConsumer(ctx, queue.LogsStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{request.function.LogsSubject("*")},
		DeliverPolicy:  jetstream.DeliverByStartTimePolicy,
		OptStartTime:   &from,
	})
	if err != nil {
		return nil, unavailable("the log stream cannot be read; try again", err)
	}
	return consumer, nil
}

// streamLogs writes the old lines that are wanted, then, when following, each new one as it comes.
func streamLogs(ctx context.Context, w http.ResponseWriter, consumer jetstream.Consumer, request logRequest) error {
	messages, err := consumer.Messages(jetstream.PullMaxMessages(logBatch))
	if err != nil {
		return err
	}
	defer messages.Stop()
	tail, err := readTail(ctx, messages, consumer.CachedInfo().NumPending, request)
	if err != nil {
		return err
	}
	if err := writeLines(w, tail); err != nil || !request.follow {
		return err
	}
	flusher := http.NewResponseController(w)
	for pending := uint64(0); ; {
		if pending == 0 { // who reads has all that there is
			if err := flusher.Flush(); err != nil {
				return err
			}
		}
		var line []byte
		if line, pending, err = nextLine(ctx, messages); err != nil {
			return err
		}
		if !wanted(line, request.call) {
			continue
		}
		if err := writeLines(w, [][]byte{line}); err != nil {
			return err
		}
	}
}

// readTail reads the lines that are there and keeps the last ones that are wanted.
func readTail(ctx context.Context, messages jetstream.MessagesContext, pending uint64, request logRequest) ([][]byte, error) {
	var tail [][]byte
	for pending > 0 {
		waiting, cancel := context.WithTimeout(ctx, logWait)
		line, left, err := nextLine(waiting, messages)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break // what was there has grown too old meanwhile
		}
		if err != nil {
			return nil, err
		}
		pending = left
		if wanted(line, request.call) {
			tail = append(tail, line)
			tail = tail[max(0, len(tail)-request.tail):]
		}
	}
	return tail, nil
}

// nextLine waits for a line, and tells how many more there are.
func nextLine(ctx context.Context, messages jetstream.MessagesContext) (line []byte, pending uint64, err error) {
	msg, err := messages.Next(jetstream.NextContext(ctx))
	if err != nil {
		return nil, 0, err
	}
	meta, err := msg.Metadata()
	if err != nil {
		return nil, 0, err
	}
	return msg.Data(), meta.NumPending, nil
}

func writeLines(w io.Writer, lines [][]byte) error {
	for _, line := range lines {
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// wanted tells whether a line is one of the call's; every line is when no call is asked for.
func wanted(data []byte, call string) bool {
	if call == "" {
		return true
	}
	var record queue.LogRecord
	return json.Unmarshal(data, &record) == nil && record.Call == call
}
