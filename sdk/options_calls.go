package freshet

import (
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Datacenters are those that workers may run in. Default: all.
func Datacenters(names ...string) Option {
	return func(f *function) { f.spec.Datacenters = names }
}

// Drain is how long a worker that stops may take to finish its calls. Default 10 minutes.
func Drain(d time.Duration) Option {
	return func(f *function) { f.spec.Drain = spec.Duration(d) }
}

// QueueTimeout is how long a call may wait for its first attempt before it ends as expired. Default: as long as its caller waits.
func QueueTimeout(d time.Duration) Option {
	return func(f *function) { f.spec.QueueTimeout = spec.Duration(d) }
}

// MaxPending bounds the calls that wait and run; callers beyond it get status 429. Default 1,000,000.
func MaxPending(calls int64) Option {
	return func(f *function) { f.spec.MaxPending = calls }
}

// MaxRunning bounds the calls that run at once in all workers together, where what they use has a limit of its own, such as a
// database's connections. Default: no bound.
func MaxRunning(calls int) Option {
	return func(f *function) { f.spec.MaxRunning = calls }
}

// CancelOnDisconnect ends a call whose caller goes away in place of waiting for its answer. Default: it runs to its end.
func CancelOnDisconnect() Option {
	return func(f *function) { f.spec.CancelOnDisconnect = true }
}

// RetryDelay bounds the delay between attempts, which grows as [Retries] says. Default 1 minute.
func RetryDelay(most time.Duration) Option {
	return func(f *function) { f.spec.Retries.MaxDelay = spec.Duration(most) }
}

// RetryOn says which kinds of failure are tried again: [wire.KindUser], KindTimeout, KindCrash, KindMemory and KindProtocol.
// Default: all of them.
func RetryOn(kinds ...wire.Kind) Option {
	return func(f *function) { f.spec.Retries.On = kinds }
}

// SnapshotGPU freezes the GPU's memory too. It implies [Snapshot].
func SnapshotGPU() Option {
	return func(f *function) {
		f.spec.Snapshot = spec.Snapshot{Enabled: true, GPU: true}
		f.snapshot = true
	}
}
