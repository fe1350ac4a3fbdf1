package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// WhySubject is where the autoscaler that acts is asked what it sees of the function, what it wants and what holds it back.
func (f Function) WhySubject() string { return "freshet.why." + f.tokens() }

// AllWhy is every such question.
const AllWhy = "freshet.why.>"

// Starts is the part of the autoscaler's answer that says how a function's workers start.
type Starts struct {
	// Ready is the number of workers that take calls.
	Ready int `json:"ready"`
	// Failures counts the starts that failed since the last one that did not, and Failure says why the last one did.
	Failures int    `json:"failures,omitempty"`
	Failure  string `json:"failure,omitempty"`
	// Held says in words what keeps workers away; empty when nothing does.
	Held []string `json:"held"`
}

// AskStarts asks the autoscaler that acts. It fails while none does.
func AskStarts(ctx context.Context, nc *nats.Conn, function Function) (Starts, error) {
	msg, err := nc.RequestWithContext(ctx, function.WhySubject(), nil)
	if err != nil {
		return Starts{}, fmt.Errorf("ask the autoscaler about %s: %w", function, err)
	}
	var answer struct {
		Why   Starts `json:"why"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return Starts{}, fmt.Errorf("read the autoscaler's answer about %s: %w", function, err)
	}
	if answer.Error != "" {
		return Starts{}, errors.New(answer.Error)
	}
	return answer.Why, nil
}
