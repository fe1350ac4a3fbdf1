package gateway

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"

	history "github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// warmth says which functions a deploy starts a worker of first, so that nothing is replaced by what does not start.
type warmth int

const (
	// warmReplaced are those that there are already, where a node has room; none of an app that is tried out.
	warmReplaced warmth = iota
	warmAll
	warmNone
)

func parseWarm(query url.Values) (warmth, error) {
	switch given := query.Get("warm"); given {
	case "":
		return warmReplaced, nil
	case "true":
		return warmAll, nil
	case "false":
		return warmNone, nil
	default:
		return 0, badInput("query parameter warm", given,
			"use true to start a worker of each function first, false for none, or leave it out to start those that replace another version")
	}
}

// wants tells whether a worker is started for a change.
func (o order) wants(change history.Change) bool {
	if o.warm == warmAll {
		return change.Action == history.Create || change.Action == history.Update
	}
	if o.warm == warmNone || o.ephemeral || o.Of != 0 || change.Action != history.Update {
		return false // what is gone back to has started before
	}
	for _, field := range change.Fields {
		if !strings.HasPrefix(field.Name, "scaling.") {
			return true
		}
	}
	return false
}

// warm starts a worker of functions that change, all at once. When one does not start nothing was changed.
func (d *deploys) warm(ctx context.Context, changes []history.Change, manifest spec.Manifest, o order) error {
	wanted := make(map[string]bool)
	for _, change := range changes {
		wanted[change.Function] = o.wants(change)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, f := range manifest.Functions {
		if !wanted[f.Name] {
			continue
		}
		if len(f.Parameters) > 0 {
			usual, err := f.Arguments(nil, nil)
			if err != nil {
				continue // some value has no default: its workers start with their first call
			}
			if f, err = f.Pool(usual); err != nil {
				return err
			}
		}
		group.Go(func() error { return warmOne(ctx, d, f, o) })
	}
	return group.Wait()
}

func warmOne(ctx context.Context, d *deploys, f spec.Function, o order) error {
	err := d.jobs.Warm(ctx, f)
	if errors.Is(err, jobs.ErrNoRoom) && o.warm == warmReplaced {
		d.exchange.log.Warn().Err(err).Str("function", f.JobID()).Msg("deploying a version that was not started first")
		return nil // the old version's workers may have to go for it
	}
	var refused *wire.Error
	if errors.As(err, &refused) {
		return &problem{Kind: refused.Kind, Message: "function " + f.Name + " does not start, so nothing was deployed: " + refused.Message}
	}
	if err != nil {
		return unavailable("a worker of function "+f.Name+" could not be started first, so nothing was deployed; try again", err)
	}
	return nil
}

// checkDomains refuses host names that other functions have.
func (d directory) checkDomains(manifest spec.Manifest) error {
	holders := make(map[string]string)
	for _, entry := range d.functions.List() {
		own := entry.Spec.App == manifest.App && len(manifest.Functions) > 0 && entry.Spec.Namespace == manifest.Functions[0].Namespace
		if entry.Err != nil || own || !entry.Spec.ServesWeb() {
			continue
		}
		for _, domain := range entry.Spec.Web.Domains {
			holders[domain] = entry.Spec.JobID() + " in namespace " + entry.Spec.Namespace
		}
	}
	for _, f := range manifest.Functions {
		for _, domain := range f.Web.Domains {
			if holder, taken := holders[domain]; taken {
				return &problem{Kind: kindConflict, Message: "function " + f.Name + ": web.domains: " + domain + " is the host name of function " + holder +
					" already; use another name, or take it from that function first"}
			}
			holders[domain] = f.JobID() + " of the same deploy"
		}
	}
	return nil
}
