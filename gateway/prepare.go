package gateway

import (
	"net/http"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// caller takes requests for calls and answers them: what every way to call a function has in common.
type caller struct {
	*exchange
	responder
	directory

	metrics *metrics
	pools   *pools
	buffers buffers
}

// target is the function that a request calls, and what the request says beside its input.
type target struct {
	header   callHeader
	function spec.Function
	key      queue.Function
	stats    *functionStats
	pace     *pace // of the function that the request names, whatever its parameters
	began    time.Time
}

// prepare checks all of a request but its body. The query may have further parameters, of the names given.
func (c *caller) prepare(r *http.Request, more ...string) (target, error) {
	t := target{began: time.Now()}
	var err error
	if t.header, err = parseCallHeader(r.Header, r.URL.RawQuery, more...); err != nil {
		return t, err
	}
	if t.function, err = c.find(t.header.namespace, r.PathValue("app"), r.PathValue("function")); err != nil {
		return t, err
	}
	if err := checkMethod(t.function, t.header.method); err != nil {
		return t, err
	}
	if t.function, err = c.pools.choose(r.Context(), t.function, t.header.parameters, t.header.arguments); err != nil {
		return t, err
	}
	t.key = queue.Function{Namespace: t.header.namespace, App: t.function.App, Name: t.function.Name}
	t.stats = c.metrics.of(t.key)
	t.pace = &t.stats.pace
	if t.function.IsPool() {
		t.pace = &c.metrics.of(ownName(t.key)).pace
	}
	return t, nil
}

// envelope is a call that somebody waits for.
func (t target) envelope() queue.Envelope {
	return envelopeOf(t.key, t.header, t.function, t.began)
}

// spawned is the envelope of a call that nobody waits for: it waits for a worker as long as the request says, else for ever.
func (t target) spawned() queue.Envelope {
	e := t.envelope()
	e.Deadline, e.Keep, e.Spawned = time.Time{}, t.header.keep, true
	if t.header.timeout > 0 {
		e.Deadline = t.began.Add(t.header.timeout)
	}
	return e
}

// connected refuses while the queue cannot be reached.
func (x *exchange) connected() (*stores, error) {
	stores := x.ready.Load()
	if stores == nil || !x.nc.IsConnected() {
		return nil, unavailable("the queue is not connected; try again", nil)
	}
	return stores, nil
}
