package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// LeaseBucket is the key-value bucket of the lease that says which autoscaler acts; LeaseTTL is how long it lasts without a
// renewal: an autoscaler that died is followed by another one this soon.
const (
	LeaseBucket = "FRESHET_LEASE"
	LeaseTTL    = 1500 * time.Millisecond
)

// LeaseSubject is where a lease is written.
func LeaseSubject(key string) string { return "$KV." + LeaseBucket + "." + key }

// ensureLease keeps the lease in a file: its revisions must not begin anew when a server does.
func ensureLease(ctx context.Context, js jetstream.JetStream, s Settings) error {
	_, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: LeaseBucket, TTL: LeaseTTL, Replicas: s.Replicas})
	if err != nil {
		return fmt.Errorf("ensure bucket %s: %w", LeaseBucket, err)
	}
	return nil
}
