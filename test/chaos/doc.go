// Package chaos tests that a node comes back by itself: from plugins, agents and sandboxes that are killed, from snapshots that are
// damaged, from a loss of power, and from a full disk. It takes minutes: `make test-long` runs it, by the tag long.
package chaos
