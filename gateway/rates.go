package gateway

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// pace is the rate of one function's calls through this gateway. A deploy may change it.
type pace struct {
	mu      sync.Mutex
	rate    spec.Rate
	limiter *rate.Limiter
}

// of is the limiter of the rate; nil for any number of calls.
func (p *pace) of(r spec.Rate) *rate.Limiter {
	if r.PerSecond == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limiter == nil {
		p.limiter = rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
	} else if p.rate != r {
		p.limiter.SetLimit(rate.Limit(r.PerSecond))
		p.limiter.SetBurst(r.Burst)
	}
	p.rate = r
	return p.limiter
}

// prepareOne is prepare for a request that is one call: it counts against its function's rate.
func (c *caller) prepareOne(r *http.Request, more ...string) (target, error) {
	t, err := c.prepare(r, more...)
	if err != nil {
		return t, err
	}
	limiter := t.pace.of(t.function.Rate)
	if limiter == nil || limiter.AllowN(t.began, 1) {
		return t, nil
	}
	wait := time.Duration(float64(time.Second) / t.function.Rate.PerSecond)
	return t, tooFast(t.key.String()+" takes "+strconv.FormatFloat(t.function.Rate.PerSecond, 'g', -1, 64)+" calls a second here, its rate; try again later", wait)
}

// keepPace waits until the function's rate lets one more call of a batch or a map through.
func (t target) keepPace(ctx context.Context, stopped <-chan struct{}) error {
	limiter := t.pace.of(t.function.Rate)
	if limiter == nil {
		return nil
	}
	turn := limiter.Reserve()
	wait := turn.Delay()
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		turn.Cancel()
		return ctx.Err()
	case <-stopped:
		turn.Cancel()
		return unavailable("this gateway stops; go on with the batch", nil)
	}
}

func tooFast(message string, wait time.Duration) *problem {
	return &problem{Kind: kindRateLimited, Message: message, retryAfter: wait}
}
