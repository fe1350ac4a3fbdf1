package queue

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// EndedWell is what CountEnds counts the calls under that have an output.
const EndedWell = "done"

// CountEnds counts how the calls of a batch ended: EndedWell, or the kind of their error. It reads no bodies, and keeps none of what
// it reads.
func CountEnds(ctx context.Context, js jetstream.JetStream, batch string) (map[string]int64, error) {
	counts := make(map[string]int64)
	consumer, err := js.OrderedConsumer(ctx, ResultsStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{BatchResults(batch)}, DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: true,
	})
	if err != nil {
		return nil, fmt.Errorf("count how batch %s ended: %w", batch, err)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("count how batch %s ended: %w", batch, err)
	}
	if info.NumPending == 0 {
		return counts, nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(resultsAhead))
	if err != nil {
		return nil, fmt.Errorf("count how batch %s ended: %w", batch, err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("count how batch %s ended: %w", batch, err)
		}
		kind := get(nats.Header(msg.Headers()), headerError)
		if kind == "" {
			kind = EndedWell
		}
		counts[kind]++
		meta, err := msg.Metadata()
		if err != nil {
			return nil, fmt.Errorf("count how batch %s ended: %w", batch, err)
		}
		if meta.NumPending == 0 {
			return counts, nil
		}
	}
}

// resultsAhead is how many results are on their way to who counts them.
const resultsAhead = 1000

// AnnounceBatchEnd has the gateways tell the caller that a batch has ended. Saying it again within minutes says it once.
func AnnounceBatchEnd(ctx context.Context, js jetstream.JetStream, b Batch) error {
	return announce(ctx, js, b.Function, b.ID, b.Callback)
}
