package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// Settings are what an operator may choose about the streams.
type Settings struct {
	// Replicas of each stream, 1 to 5. Default 1, for a single server; a cluster wants 3.
	Replicas int
	// MaxPending bounds the messages of one function's queue at the server. Default 1,000,000.
	MaxPending int64
	// LogBytes bounds LogsStream, EventBytes EventsStream; the oldest go first. Defaults 1 GiB and 256 MiB.
	LogBytes   int64
	EventBytes int64
	// ResultAge is how long results, batches and cancellations are kept at most. Default 7 days.
	ResultAge time.Duration
	// DeadAge and DeadBytes bound the calls kept because they could not be done; the oldest go first. Defaults 30 days, 1 GiB.
	DeadAge   time.Duration
	DeadBytes int64
	// YieldBytes bounds the values of generators, which are kept for a day; the oldest go first. Default 1 GiB.
	YieldBytes int64
	// PoolIdle is how long the job of a combination of parameters stays that nobody calls. Default DefaultPoolIdle.
	PoolIdle time.Duration
}

// DefaultPoolIdle is Settings.PoolIdle where it is not set.
const DefaultPoolIdle = time.Hour

func (s Settings) withDefaults() Settings {
	if s.Replicas == 0 {
		s.Replicas = 1
	}
	if s.MaxPending == 0 {
		s.MaxPending = 1_000_000
	}
	if s.LogBytes == 0 {
		s.LogBytes = 1 << 30
	}
	if s.EventBytes == 0 {
		s.EventBytes = 256 << 20
	}
	if s.ResultAge == 0 {
		s.ResultAge = resultAge
	}
	if s.DeadAge == 0 {
		s.DeadAge = 30 * 24 * time.Hour
	}
	if s.DeadBytes == 0 {
		s.DeadBytes = 1 << 30
	}
	if s.YieldBytes == 0 {
		s.YieldBytes = 1 << 30
	}
	if s.PoolIdle == 0 {
		s.PoolIdle = DefaultPoolIdle
	}
	return s
}

const (
	// resultAge is how long a result is kept at most unless the operator says otherwise; a result may ask for less by its own TTL.
	resultAge = 7 * 24 * time.Hour
	// yieldAge is how long the values of a generator can be read again.
	yieldAge = 24 * time.Hour
	// maxAttemptRecords is how many failed attempts of one call are kept.
	maxAttemptRecords = 128
	// duplicateWindow is how long the server remembers a call's id: a gateway that did not hear an acknowledgement
	// publishes again within seconds.
	duplicateWindow = 2 * time.Minute
	// keyAge is how long an idempotency key is remembered.
	keyAge = 24 * time.Hour
	// answerWithin is how long a server may take to answer about a stream. One whose cluster has no leader just then says nothing, and
	// is asked again.
	answerWithin = 3 * time.Second
)

// Setup makes every stream or brings it to these settings. Gateways call it at start; it is idempotent. It tries as long as the context
// allows.
func Setup(ctx context.Context, js jetstream.JetStream, settings Settings) error {
	settings = settings.withDefaults()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for shard := range Shards {
		group.Go(func() error {
			return insist(ctx, func(ctx context.Context) error { return ensure(ctx, js, callsConfig(shard, settings)) })
		})
	}
	for _, config := range []jetstream.StreamConfig{
		resultsConfig(settings), logsConfig(settings), eventsConfig(settings), batchesConfig(settings), attemptsConfig(settings),
		callbacksConfig(settings), deadConfig(settings), cancelsConfig(settings), yieldsConfig(settings),
	} {
		group.Go(func() error { return insist(ctx, func(ctx context.Context) error { return ensure(ctx, js, config) }) })
	}
	for _, bucket := range bucketConfigs(settings) {
		group.Go(func() error {
			return insist(ctx, func(ctx context.Context) error { return ensureBucket(ctx, js, bucket) })
		})
	}
	return group.Wait()
}

// insist asks again what is not answered in time, until the context ends.
func insist(ctx context.Context, ask func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, answerWithin)
		err := ask(once)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// ensure reads first: an update of 64 unchanged streams costs a write each.
func ensure(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) error {
	_, err := js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = js.CreateStream(ctx, config)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			err = nil // another gateway made it meanwhile
		}
	} else if err == nil {
		_, err = js.UpdateStream(ctx, config)
	}
	if err != nil {
		return fmt.Errorf("ensure stream %s: %w", config.Name, err)
	}
	return nil
}

func callsConfig(shard int, s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:                 shardStream(shard),
		Subjects:             []string{"freshet.calls." + strconv.Itoa(shard) + ".>"},
		Retention:            jetstream.WorkQueuePolicy,
		Storage:              jetstream.FileStorage,
		Replicas:             s.Replicas,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		MaxMsgsPerSubject:    s.MaxPending,
		MaxConsumers:         -1,
		Duplicates:           duplicateWindow,
	}
}

func resultsConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              ResultsStream,
		Subjects:          []string{resultsPrefix + ">"},
		Storage:           jetstream.FileStorage,
		Replicas:          s.Replicas,
		MaxMsgsPerSubject: 1,
		MaxAge:            s.ResultAge,
		AllowDirect:       true,
		AllowMsgTTL:       true,
		Duplicates:        time.Second, // results carry no message id: the expected sequence makes the first one win
	}
}

func logsConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: LogsStream, Subjects: []string{"freshet.logs.>"}, Storage: jetstream.FileStorage,
		Replicas: s.Replicas, MaxBytes: s.LogBytes, MaxAge: resultAge, NoAck: true, AllowDirect: true,
	}
}

func eventsConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: EventsStream, Subjects: []string{"freshet.events.>"}, Storage: jetstream.FileStorage,
		Replicas: s.Replicas, MaxBytes: s.EventBytes, MaxAge: resultAge, NoAck: true, AllowDirect: true,
	}
}

func batchesConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: BatchesStream, Subjects: []string{batchesPrefix + ">"}, Storage: jetstream.FileStorage,
		Replicas: s.Replicas, MaxMsgsPerSubject: 1, MaxAge: s.ResultAge, AllowDirect: true,
	}
}

func attemptsConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: AttemptsStream, Subjects: []string{"freshet.attempts.*"}, Storage: jetstream.FileStorage,
		Replicas: s.Replicas, MaxMsgsPerSubject: maxAttemptRecords, MaxBytes: s.EventBytes, MaxAge: s.DeadAge, NoAck: true, AllowDirect: true,
	}
}

func deadConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: DeadStream, Subjects: []string{deadPrefix + ">"}, Storage: jetstream.FileStorage,
		Replicas: s.Replicas, MaxMsgsPerSubject: 1, MaxBytes: s.DeadBytes, MaxAge: s.DeadAge, AllowDirect: true,
	}
}

func cancelsConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: CancelsStream, Subjects: []string{"freshet.cancels.>"}, Storage: jetstream.FileStorage,
		Replicas: s.Replicas, MaxMsgsPerSubject: 1, MaxAge: s.ResultAge, AllowDirect: true,
	}
}

func yieldsConfig(s Settings) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: YieldsStream, Subjects: []string{"freshet.yields.*"}, Storage: jetstream.FileStorage,
		Replicas: s.Replicas, MaxBytes: s.YieldBytes, MaxAge: yieldAge, AllowDirect: true,
	}
}

// bucketConfigs are the key-value buckets'. The lease is in a file too: its revisions must not begin anew when a server does.
func bucketConfigs(s Settings) []jetstream.KeyValueConfig {
	return []jetstream.KeyValueConfig{
		{Bucket: KeysBucket, TTL: keyAge, Replicas: s.Replicas},
		{Bucket: TokensBucket, Replicas: s.Replicas},
		{Bucket: SchedulesBucket, Replicas: s.Replicas},
		{Bucket: DeploysBucket, Replicas: s.Replicas},
		{Bucket: PoolsBucket, TTL: s.PoolIdle, Replicas: s.Replicas},
		{Bucket: ToldBucket, TTL: s.ResultAge, Replicas: s.Replicas},
		{Bucket: LeaseBucket, TTL: LeaseTTL, Replicas: s.Replicas},
	}
}

func ensureBucket(ctx context.Context, js jetstream.JetStream, config jetstream.KeyValueConfig) error {
	if _, err := js.CreateOrUpdateKeyValue(ctx, config); err != nil {
		return fmt.Errorf("ensure bucket %s: %w", config.Bucket, err)
	}
	return nil
}
