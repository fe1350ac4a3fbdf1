// Package eventually waits for conditions in tests, with a deadline instead of a sleep.
package eventually

import (
	"testing"
	"time"
)

const (
	// Patience bounds every wait: generous, because a machine under load takes its time, and a condition that is met ends the
	// wait at once.
	Patience = time.Minute
	// beat is the pause between two looks.
	beat = 10 * time.Millisecond
)

// True waits until the condition is met, and fails the test when it never is.
func True(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			tb.Fatalf("never: %s", what)
		case <-ticker.C:
		}
	}
}
