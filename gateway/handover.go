package gateway

import (
	"context"
	"errors"
	"net/url"
	"time"

	history "github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/internal/queue"
)

// The strategies of a deploy: what becomes of the calls that run.
const (
	rolling  = "rolling"
	recreate = "recreate"
)

// parseStrategy tells whether running calls move to the new version.
func parseStrategy(query url.Values) (move bool, err error) {
	switch given := query.Get("strategy"); given {
	case "", rolling:
		return false, nil
	case recreate:
		return true, nil
	default:
		return false, badInput("query parameter strategy", given,
			"use rolling, with which running calls finish on the old version, or recreate, with which they begin anew on the new one")
	}
}

// handOverWithin is how soon after the word Nomad must stop the workers whose calls are to move.
const handOverWithin = time.Minute

// handOver asks the workers of functions that change to give their calls back when Nomad stops them. It is no promise: a worker that
// does not hear it finishes its calls.
func (d *deploys) handOver(namespace, app string, changes []history.Change) {
	data, err := queue.Rest{HandOver: handOverWithin}.Encode()
	for _, change := range changes {
		if change.Action != history.Update {
			continue
		}
		function := queue.Function{Namespace: namespace, App: app, Name: change.Function}
		for _, beat := range d.workers.list(namespace, app, change.Function) {
			if err == nil {
				err = d.nc.Publish(function.ControlSubject(beat.Alloc), data)
			}
		}
	}
	if err != nil {
		d.exchange.log.Warn().Err(err).Str("app", app).Msg("move calls to the new version; they finish on the old one")
	}
}

// sweepEvery is how often jobs are looked for that started a worker ahead and whose gateway died.
const sweepEvery = time.Minute

// sweepWarmed removes what deploys left behind: what is there while its app is not being deployed.
func (d *deploys) sweepWarmed(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := d.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			d.exchange.log.Warn().Err(err).Msg("remove what deploys left behind; trying again")
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (d *deploys) sweepOnce(ctx context.Context) error {
	stores, err := d.connected()
	if err != nil {
		return err
	}
	all, err := d.jobs.Warmed(ctx)
	if err != nil {
		return err
	}
	for _, left := range all {
		locked, release, err := stores.deploys.Lock(ctx, left.Namespace, left.App)
		if errors.Is(err, history.ErrBusy) {
			continue
		}
		if err != nil {
			return err
		}
		err = d.jobs.PurgeWarmed(locked, left)
		release()
		if err != nil {
			return err
		}
		d.exchange.log.Info().Str("job", left.Job).Msg("removed what a deploy left behind")
	}
	return nil
}
