package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	// poolsPerSecond and poolsAtOnce bound how fast combinations of parameters that nobody called before get workers of their own, at
	// each gateway.
	poolsPerSecond = 1
	poolsAtOnce    = 1000
	// poolWait bounds how long Nomad may take to know of a new one.
	poolWait = 10 * time.Second
	// parameterPrefix stands before a parameter's name in a query.
	parameterPrefix = "param."
)

// pools are the functions with parameters, of which each combination of values is a function of its own: a job that is made when
// the combination is first called, and removed when nobody called it for a time and nothing of it is left to do.
type pools struct {
	*exchange
	directory

	jobs Jobs
	idle time.Duration

	made    *rate.Limiter
	making  singleflight.Group
	current sync.Map // queue.Function → pool, as it was last found or made here
}

// pool is a combination as this gateway knows it.
type pool struct {
	spec string    // as it should be, in JSON
	used time.Time // when others were last told that it is in use
}

func newPools(x *exchange, functions directory, jobs Jobs, idle time.Duration) *pools {
	return &pools{exchange: x, directory: functions, jobs: jobs, idle: idle, made: rate.NewLimiter(poolsPerSecond, poolsAtOnce)}
}

// choose is the function that a call of f with these parameters goes to: f itself where it has none.
func (p *pools) choose(ctx context.Context, f spec.Function, texts map[string]string, object string) (spec.Function, error) {
	if len(f.Parameters) == 0 || f.IsPool() {
		if len(texts) == 0 && object == "" {
			return f, nil
		}
		_, err := spec.Config{}.Arguments(texts, []byte(object)) // those of a combination are chosen
		return f, asBadInput(err)
	}
	values, err := f.Arguments(texts, []byte(object))
	if err != nil {
		return f, asBadInput(err)
	}
	wanted, err := f.Pool(values)
	if err != nil {
		return f, err
	}
	wanted = wanted.WithDefaults()
	text, err := json.Marshal(wanted)
	if err != nil {
		return f, fmt.Errorf("encode function %s: %w", wanted.JobID(), err)
	}
	if err := p.ensure(ctx, wanted, string(text)); err != nil {
		return f, err
	}
	return wanted, nil
}

func asBadInput(err error) error {
	var wrong spec.FieldError
	if errors.As(err, &wrong) {
		return badInput(wrong.Field, wrong.Value, wrong.Mend)
	}
	return err
}

// ensure makes the job of a combination where there is none, or that of another deploy, and tells the other gateways that it is used.
func (p *pools) ensure(ctx context.Context, wanted spec.Function, text string) error {
	key := queue.Function{Namespace: wanted.Namespace, App: wanted.App, Name: wanted.Name}
	there, exists := p.functions.Get(key.Namespace, key.App, key.Name)
	known, _ := p.current.Load(key)
	current, _ := known.(pool)
	now := time.Now()
	if exists && current.spec == text && now.Sub(current.used) < p.idle/8 {
		return nil
	}
	if err := p.use(ctx, key); err != nil {
		return err
	}
	if !exists || current.spec != text && !sameSpec(there, text) {
		if err := p.make(ctx, wanted, exists); err != nil {
			return err
		}
	}
	p.current.Store(key, pool{text, now})
	return nil
}

// sameSpec tells whether a function that Nomad has is as the text says.
func sameSpec(f spec.Function, text string) bool {
	data, err := json.Marshal(f)
	return err == nil && string(data) == text
}

// make registers a combination's job and waits until it can be called. Callers who come at the same time share it.
func (p *pools) make(ctx context.Context, wanted spec.Function, exists bool) error {
	_, err, _ := p.making.Do(wanted.Namespace+"/"+wanted.JobID(), func() (any, error) {
		if !exists && !p.made.Allow() {
			return nil, tooFast(fmt.Sprintf("too many new combinations of parameters: workers for %d a second are made here; try again later", poolsPerSecond), time.Second)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), poolWait) // others wait for it too
		defer cancel()
		if err := p.jobs.Register(ctx, wanted); err != nil {
			return nil, unavailable("the workers for these parameters could not be registered with Nomad; try again", err)
		}
		p.functions.Await(ctx, wanted.Namespace, wanted.App, wanted.Name, wanted.Version)
		return nil, nil
	})
	return err
}

// use tells all gateways that a combination was called: its job stays for another while.
func (p *pools) use(ctx context.Context, key queue.Function) error {
	stores, err := p.connected()
	if err != nil {
		return err
	}
	if _, err := stores.pools.Put(ctx, queue.PoolKey(key), nil); err != nil {
		return unavailable("the queue cannot be reached; try again", err)
	}
	return nil
}

// follow removes the jobs of combinations that nobody called for a time, until the context ends. Gateways do so beside each other.
func (p *pools) follow(ctx context.Context, bucket jetstream.KeyValue) {
	ticker := time.NewTicker(min(p.idle/4, time.Minute))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := p.sweep(ctx, bucket); err != nil && ctx.Err() == nil {
			p.log.Warn().Err(err).Msg("remove workers of parameters that are not called any more; trying again")
		}
	}
}

func (p *pools) sweep(ctx context.Context, bucket jetstream.KeyValue) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, entry := range p.functions.List() {
		if !entry.Spec.IsPool() || entry.Count > 0 {
			continue
		}
		key := entry.Key()
		if all, _ := p.workers.count(key); all > 0 {
			continue
		}
		used, err := p.inUse(ctx, bucket, key)
		if err != nil {
			return err
		}
		if used {
			continue
		}
		if err := p.jobs.Stop(ctx, key.Namespace, entry.Job); err != nil {
			return fmt.Errorf("stop job %s: %w", entry.Job, err)
		}
		p.current.Delete(key)
		if used, err = p.inUse(ctx, bucket, key); err != nil || used { // it was called in between, or may have been
			if err := errors.Join(err, p.jobs.Register(ctx, entry.Spec)); err != nil {
				return err
			}
		}
	}
	return nil
}

// inUse tells whether a combination was called lately, or has calls left.
func (p *pools) inUse(ctx context.Context, bucket jetstream.KeyValue, key queue.Function) (bool, error) {
	_, err := bucket.Get(ctx, queue.PoolKey(key))
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return false, fmt.Errorf("look for the use of %s: %w", key, err)
	}
	depth, err := queue.Depth(ctx, p.js, key)
	return depth > 0, err
}

// parametersOf takes the values of parameters out of a query.
func parametersOf(query url.Values) map[string]string {
	var texts map[string]string
	for name, values := range query {
		if parameter, ok := strings.CutPrefix(name, parameterPrefix); ok {
			if texts == nil {
				texts = make(map[string]string)
			}
			texts[parameter] = values[0]
		}
	}
	return texts
}

// checkMethod refuses a method that a class does not have, and a call of a class that names none.
func checkMethod(f spec.Function, method string) error {
	switch {
	case len(f.Methods) == 0 || slices.Contains(f.Methods, method):
		return nil
	case method == "":
		return badInput("query parameter method", "", fmt.Sprintf("%s is a class: name one of its methods %q", f.JobID(), f.Methods))
	}
	return &problem{Kind: kindNotFound, Message: fmt.Sprintf("%s has no method %s", f.JobID(), method), Near: near(method, f.Methods)}
}

// ownName is the function as tokens name it: a combination of parameters is its function.
func ownName(f queue.Function) queue.Function {
	f.Name = spec.BaseName(f.Name)
	return f
}
