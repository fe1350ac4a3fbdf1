package queue

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
)

// MaxLookup is how many calls RequestResults may ask for at once: the server answers at most 1,024.
const MaxLookup = 512

// RequestResults asks for the stored results of calls, in one message and without waiting: each result that is there
// arrives at the reply subject as a message for ParseResult; calls without one are not mentioned. Messages that are no
// result (the server's own end of the list) have no call id.
func RequestResults(nc *nats.Conn, calls []string, reply string) error {
	subjects := make([]string, 0, len(calls))
	for _, call := range calls {
		subjects = append(subjects, ResultSubject(call))
	}
	// ADR-31 of NATS: a direct get of the last messages of several subjects.
	request, err := json.Marshal(struct {
		MultiLast []string `json:"multi_last"`
	}{subjects})
	if err != nil {
		return fmt.Errorf("encode lookup of %d results: %w", len(calls), err)
	}
	if err := nc.PublishRequest("$JS.API.DIRECT.GET."+ResultsStream, reply, request); err != nil {
		return fmt.Errorf("look up %d results: %w", len(calls), err)
	}
	return nil
}

// CallOf is the call id that a result's message carries, empty when it is no result.
func CallOf(h nats.Header) string { return get(h, headerCall) }
