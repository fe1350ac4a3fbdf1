package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// askAgain is how long a stream's leader may take to answer before it is asked again: there may be none just then, or another one.
const askAgain = time.Second

// lastByLeader reads the last message of a subject from the stream's leader. Any replica answers what package page asks, and one of them
// may not have yet what was stored a moment ago: where nothing is found there, or what is found is to be changed, the leader is asked.
// It returns false when there is none.
func lastByLeader(ctx context.Context, nc *nats.Conn, stream, subject string) (Stored, bool, error) {
	request, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return Stored{}, false, fmt.Errorf("read %s: %w", stream, err)
	}
	ctx, cancel := context.WithTimeout(ctx, pageWait)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(ctx, askAgain)
		msg, err := nc.RequestWithContext(once, "$JS.API.STREAM.MSG.GET."+stream, request)
		cancel()
		if err == nil {
			return parseLast(stream, msg.Data)
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return Stored{}, false, fmt.Errorf("read %s: %w: %w", stream, ErrStream, err)
		}
	}
}

func parseLast(stream string, data []byte) (Stored, bool, error) {
	var answer struct {
		Message struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return Stored{}, false, fmt.Errorf("read %s: %w", stream, err)
	}
	m := answer.Message
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return Stored{}, false, nil
	case answer.Error != nil:
		return Stored{}, false, fmt.Errorf("read %s: %w: %w", stream, ErrStream, answer.Error)
	case len(m.Header) == 0:
		return Stored{Subject: m.Subject, Sequence: m.Sequence, Time: m.Time, Data: m.Data}, true, nil
	}
	header, err := nats.DecodeHeadersMsg(m.Header)
	if err != nil {
		return Stored{}, false, fmt.Errorf("read %s: %w", stream, err)
	}
	return Stored{Subject: m.Subject, Sequence: m.Sequence, Time: m.Time, Header: header, Data: m.Data}, true, nil
}

// findLast reads the last message of a subject, which may have wildcards, wherever it is.
func findLast(ctx context.Context, nc *nats.Conn, stream, subject string) (Stored, bool, error) {
	page, err := ReadLast(ctx, nc, stream, []string{subject})
	if err != nil {
		return Stored{}, false, err
	}
	if len(page.Messages) > 0 {
		return page.Messages[0], true, nil
	}
	return lastByLeader(ctx, nc, stream, subject)
}
