// Package queue is the contract that gateway, workers and autoscaler keep over NATS: the streams and subjects, the call's
// envelope, the result, the worker's heartbeat and the demand hint. Nothing else in freshet names a subject.
package queue

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// Shards is the number of streams that calls are spread over by function: a stream's cost grows with its consumers
// (publish to reply p50: 65 µs with one consumer on the stream, 3 ms with 10,000, 100 µs with 10,000 over 64 streams).
const Shards = 64

// The streams.
const (
	callsStreamPrefix = "FRESHET_CALLS_"
	// ResultsStream keeps one message a call: how it ended.
	ResultsStream = "FRESHET_RESULTS"
	// BatchesStream keeps one message a batch: what was spawned.
	BatchesStream = "FRESHET_BATCHES"
	// AttemptsStream keeps a message for each attempt of a call that failed.
	AttemptsStream = "FRESHET_ATTEMPTS"
	// DeadStream keeps the calls that could not be done, with their inputs.
	DeadStream = "FRESHET_DEAD"
	// CancelsStream keeps which calls and batches were cancelled.
	CancelsStream = "FRESHET_CANCELS"
	// YieldsStream keeps the values of generators.
	YieldsStream = "FRESHET_YIELDS"
	// LogsStream keeps what guests and workers wrote.
	LogsStream = "FRESHET_LOGS"
	// EventsStream keeps what happened to workers.
	EventsStream = "FRESHET_EVENTS"
	// KeysBucket is the key-value bucket that maps idempotency keys to call ids, and holds the marks of suspect calls.
	KeysBucket = "FRESHET_KEYS"
	// TokensBucket is the key-value bucket that holds the gateways' tokens, hashed.
	TokensBucket = "FRESHET_TOKENS"
	// SchedulesBucket is the key-value bucket that holds when calls are due that nobody makes.
	SchedulesBucket = "FRESHET_SCHEDULES"
	// DeploysBucket is the key-value bucket that holds which deploys there were.
	DeploysBucket = "FRESHET_DEPLOYS"
	// PoolsBucket is the key-value bucket that holds which combinations of parameters were called lately.
	PoolsBucket = "FRESHET_POOLS"
	// ToldBucket is the key-value bucket that holds the batches whose ends are to be told, until they are.
	ToldBucket = "FRESHET_TOLD"
)

// Function names a function in subjects, log fields and metrics.
type Function struct {
	Namespace string
	App       string
	Name      string
}

// String is namespace/app.function, without the namespace where it is the default one.
func (f Function) String() string {
	if f.Namespace == "default" || f.Namespace == "" {
		return f.App + "." + f.Name
	}
	return f.Namespace + "/" + f.App + "." + f.Name
}

func (f Function) hash() uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(f.tokens())) // never fails: hash.Hash
	return h.Sum32()
}

func (f Function) tokens() string { return f.Namespace + "." + f.App + "." + f.Name }

// Shard is the function's stream number, 0 to Shards-1. It must never change: queued calls live where it says.
func (f Function) Shard() int { return int(f.hash() % Shards) }

// CallsStream is the name of the stream that holds the function's calls.
func (f Function) CallsStream() string { return shardStream(f.Shard()) }

func shardStream(shard int) string { return callsStreamPrefix + strconv.Itoa(shard) }

// CallsSubject is where the function's calls are published.
func (f Function) CallsSubject() string {
	return "freshet.calls." + strconv.Itoa(f.Shard()) + "." + f.tokens()
}

// Consumer is the name of the function's durable consumer. The hash keeps a.b_c and a_b.c apart.
func (f Function) Consumer() string {
	return fmt.Sprintf("%s_%s_%08x", f.App, f.Name, f.hash())
}

// DemandSubject is where a gateway says that the function has calls and no free worker.
func (f Function) DemandSubject() string { return "freshet.demand." + f.tokens() }

// WorkerSubject is where a worker of the function sends heartbeats.
func (f Function) WorkerSubject(alloc string) string {
	return "freshet.workers." + f.tokens() + "." + alloc
}

// LogsSubject is where a worker of the function sends log records.
func (f Function) LogsSubject(alloc string) string { return "freshet.logs." + f.tokens() + "." + alloc }

// EventsSubject is where events of the function's workers are stored.
func (f Function) EventsSubject(alloc string) string {
	return "freshet.events." + f.tokens() + "." + alloc
}

// BatchSubject is where a batch of the function is recorded; AnyBatchSubject finds it without knowing the function.
func (f Function) BatchSubject(batch string) string { return batchesPrefix + f.tokens() + "." + batch }

// AnyBatchSubject finds a batch by its id alone.
func AnyBatchSubject(batch string) string { return batchesPrefix + "*.*.*." + batch }

// DeadSubject is where a call of the function that could not be done is kept.
func (f Function) DeadSubject(call string) string { return deadPrefix + f.tokens() + "." + call }

// AnyDeadSubject finds a dead call by its id alone.
func AnyDeadSubject(call string) string { return deadPrefix + "*.*.*." + call }

// CancelSubject is where it is written that a call of the function, or a batch of them, is cancelled. The function's workers
// listen there.
func (f Function) CancelSubject(id string) string { return "freshet.cancels." + f.tokens() + "." + id }

// PoolKey is the function's key in PoolsBucket, whose keys do not have every character of names.
func PoolKey(f Function) string { return strings.ReplaceAll(f.tokens(), "~", "=") }

// AttemptsSubject is where the failed attempts of a call are kept.
func AttemptsSubject(call string) string { return "freshet.attempts." + call }

// YieldsSubject is where the values that a call yields are kept.
func YieldsSubject(call string) string { return "freshet.yields." + call }

// Wildcards over all functions.
const (
	AllDemand  = "freshet.demand.>"
	AllWorkers = "freshet.workers.>"
)

// ResultSubject is where a call's result is stored.
func ResultSubject(call string) string { return idSubject(resultsPrefix, call) }

// ReplySubject is where a gateway's waiting caller gets the result; AllReplies is all of one gateway's.
func ReplySubject(gateway, call string) string { return replyPrefix + gateway + "." + call }

// WatchedSubject is ReplySubject for a caller who also listens where the call's result is stored: workers send it no copy.
func WatchedSubject(gateway, call string) string {
	return replyPrefix + gateway + "." + watchedToken + "." + call
}

// AllReplies is every reply to one gateway, the words on stored results among them.
func AllReplies(gateway string) string { return replyPrefix + gateway + ".>" }

const (
	replyPrefix   = "freshet.reply."
	resultsPrefix = "freshet.results."
	batchesPrefix = "freshet.batches."
	deadPrefix    = "freshet.dead."
)

// storedToken stands before the worker in a subject made by StoredSubject.
const storedToken = "stored"

// watchedToken stands before the call in a subject made by WatchedSubject.
const watchedToken = "watched"

// watched tells the subjects made by WatchedSubject.
func watched(reply string) bool { return strings.Contains(reply, "."+watchedToken+".") }

// StoredSubject is where the server says that it stored the result of a worker's attempt: to the worker, and at the same time
// to the gateway of the reply subject, whose caller waits for that word.
func StoredSubject(reply string, r Result) string {
	gateway := "none" // the call has no waiting caller
	if rest, ok := strings.CutPrefix(reply, replyPrefix); ok {
		gateway, _, _ = strings.Cut(rest, ".")
	}
	return replyPrefix + gateway + "." + storedToken + "." + r.sender() + "." + r.Call
}

// AllStoredBy is every word about a worker's results.
func AllStoredBy(worker string) string {
	return replyPrefix + "*." + storedToken + "." + worker + ".*.*"
}

// ParseStored reads the sender (see SenderOf) and the call of a subject made by StoredSubject.
func ParseStored(subject string) (sender, call string, ok bool) {
	parts := strings.Split(subject, ".")
	if len(parts) != 7 || parts[3] != storedToken {
		return "", "", false
	}
	return parts[4] + "." + parts[5], parts[6], true
}

// CallOfReply is the last token of a subject: the call id of a reply.
func CallOfReply(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// ParseFunction reads the function out of a demand, calls or workers subject.
func ParseFunction(subject string) (Function, bool) {
	parts := strings.Split(subject, ".")
	if len(parts) < 5 || parts[0] != "freshet" {
		return Function{}, false
	}
	if parts[1] == "calls" {
		parts = parts[1:]
	}
	if len(parts) < 5 {
		return Function{}, false
	}
	return Function{Namespace: parts[2], App: parts[3], Name: parts[4]}, true
}
