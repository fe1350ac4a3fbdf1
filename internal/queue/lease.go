package queue

import "time"

// LeaseBucket is the key-value bucket of the lease that says which autoscaler acts; LeaseTTL is how long it lasts without a
// renewal: an autoscaler that died is followed by another one this soon.
const (
	LeaseBucket = "FRESHET_LEASE"
	LeaseTTL    = 1500 * time.Millisecond
)

// LeaseSubject is where a lease is written.
func LeaseSubject(key string) string { return "$KV." + LeaseBucket + "." + key }
