package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pageBytes bounds what one page brings, in bytes, so that many readers together need little memory.
	pageBytes = 4 << 20
	// pageWait is how long the server may take for a page, unless the context ends sooner.
	pageWait = 5 * time.Second
)

// ErrStream is wrapped by errors about a stream that did not answer as it should.
var ErrStream = errors.New("the stream cannot be read")

// Query asks for stored messages: those of a subject, which may have wildcards, from a sequence or a time on.
type Query struct {
	Stream  string
	Subject string
	// From is the sequence to begin with, 0 the first. Since is a time to begin with, used when it is set.
	From  uint64
	Since time.Time
	// Limit is the most messages wanted, at most 1,000.
	Limit int
}

// Stored is a message as a stream has it.
type Stored struct {
	Subject  string
	Sequence uint64
	Time     time.Time
	Header   nats.Header
	Data     []byte
}

// Page is some stored messages in the stream's order.
type Page struct {
	Messages []Stored
	// Pending is how many more match after them.
	Pending uint64
}

// Read reads a page without making a consumer, which a stream could not have thousands of.
func Read(ctx context.Context, nc *nats.Conn, q Query) (Page, error) {
	request := struct { // ADR-31 of NATS: a direct get of a batch
		Sequence uint64     `json:"seq,omitempty"`
		Since    *time.Time `json:"start_time,omitempty"`
		Subject  string     `json:"next_by_subj"`
		Batch    int        `json:"batch"`
		MaxBytes int        `json:"max_bytes"`
	}{q.From, nil, q.Subject, q.Limit, pageBytes}
	if !q.Since.IsZero() {
		request.Sequence, request.Since = 0, &q.Since
	}
	return direct(ctx, nc, q.Stream, request)
}

// ReadLast reads the last messages of up to MaxLookup subjects, which may have wildcards.
func ReadLast(ctx context.Context, nc *nats.Conn, stream string, subjects []string) (Page, error) {
	return direct(ctx, nc, stream, struct {
		MultiLast []string `json:"multi_last"`
	}{subjects})
}

// Count is how many messages of a subject, which may have wildcards, the stream has.
func Count(ctx context.Context, nc *nats.Conn, stream, subject string) (uint64, error) {
	page, err := Read(ctx, nc, Query{Stream: stream, Subject: subject, Limit: 1})
	if err != nil {
		return 0, err
	}
	return uint64(len(page.Messages)) + page.Pending, nil
}

func direct(ctx context.Context, nc *nats.Conn, stream string, request any) (Page, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return Page{}, fmt.Errorf("read %s: %w", stream, err)
	}
	ctx, cancel := context.WithTimeout(ctx, pageWait)
	defer cancel()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return Page{}, fmt.Errorf("read %s: %w", stream, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, data); err != nil {
		return Page{}, fmt.Errorf("read %s: %w", stream, err)
	}
	var page Page
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return Page{}, fmt.Errorf("read %s: %w: %w", stream, ErrStream, err)
		}
		switch status := msg.Header.Get("Status"); status {
		case "":
			page.Messages = append(page.Messages, newStored(msg))
		case "204": // the end of the page
			page.Pending, err = strconv.ParseUint(msg.Header.Get("Nats-Num-Pending"), 10, 64)
			if err != nil {
				return Page{}, fmt.Errorf("read %s: %w", stream, err)
			}
			return page, nil
		case "404":
			return page, nil
		default:
			return Page{}, fmt.Errorf("read %s: %w: %s %s", stream, ErrStream, status, msg.Header.Get("Description"))
		}
	}
}

func newStored(msg *nats.Msg) Stored {
	sequence, _ := strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64)    // the server writes these
	stored, _ := time.Parse(time.RFC3339Nano, msg.Header.Get("Nats-Time-Stamp")) // two
	return Stored{
		Subject: msg.Header.Get("Nats-Subject"), Sequence: sequence, Time: stored, Header: msg.Header, Data: msg.Data,
	}
}
