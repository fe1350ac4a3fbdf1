package deploys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Kept is how many deploys of an app are kept; older ones are forgotten. Nomad itself keeps six versions of a job.
const Kept = 50

// ErrNotFound says that the app had no such deploy, or that it was forgotten.
var ErrNotFound = errors.New("no such deploy")

// Deploy is one that there was: all that is needed to do it again.
type Deploy struct {
	// Number counts an app's deploys from 1.
	Number    int       `json:"number"`
	Namespace string    `json:"namespace"`
	App       string    `json:"app"`
	Version   string    `json:"version"`
	Time      time.Time `json:"time"`
	// By is the name of the token, empty where none was asked for.
	By string `json:"by,omitempty"`
	// Message and Commit are the words of who deployed, and what the source was.
	Message string `json:"message,omitempty"`
	Commit  string `json:"commit,omitempty"`
	// Of is the number of the deploy that this one went back to; 0 for none.
	Of        int             `json:"of,omitempty"`
	Functions []spec.Function `json:"functions"`
}

// History is the deploys of all apps, in a bucket of NATS.
type History struct{ Bucket jetstream.KeyValue }

// key orders an app's deploys by their names.
func key(namespace, app string, number int) string {
	return fmt.Sprintf("%s.%s.%08d", namespace, app, number)
}

// List is an app's deploys, the newest first.
func (h History) List(ctx context.Context, namespace, app string) ([]Deploy, error) {
	watcher, err := h.Bucket.Watch(ctx, namespace+"."+app+".*", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("list deploys of %s: %w", app, err)
	}
	defer func() { _ = watcher.Stop() }() // fails only on a closed connection
	deploys := []Deploy{}                 // an empty list in JSON, never null
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil {
				slices.SortFunc(deploys, func(a, b Deploy) int { return b.Number - a.Number })
				return deploys, nil
			}
			var d Deploy
			if err := json.Unmarshal(entry.Value(), &d); err != nil {
				return nil, fmt.Errorf("read deploy %s: %w", entry.Key(), err)
			}
			deploys = append(deploys, d)
		case <-ctx.Done():
			return nil, fmt.Errorf("list deploys of %s: %w", app, ctx.Err())
		}
	}
}

// Add records a deploy under the next number, which it returns. Of two at once each gets its own.
func (h History) Add(ctx context.Context, d Deploy) (int, error) {
	for {
		there, err := h.List(ctx, d.Namespace, d.App)
		if err != nil {
			return 0, err
		}
		d.Number = 1
		if len(there) > 0 {
			d.Number = there[0].Number + 1
		}
		data, err := json.Marshal(d)
		if err != nil {
			return 0, fmt.Errorf("encode deploy: %w", err)
		}
		_, err = h.Bucket.Create(ctx, key(d.Namespace, d.App, d.Number), data)
		if errors.Is(err, jetstream.ErrKeyExists) {
			continue // somebody else took the number
		}
		if err != nil {
			return 0, fmt.Errorf("record deploy: %w", err)
		}
		return d.Number, h.forget(ctx, there)
	}
}

// forget removes what is too old, once there is one more than these.
func (h History) forget(ctx context.Context, there []Deploy) error {
	for _, old := range there[min(len(there), Kept-1):] {
		if err := h.Bucket.Purge(ctx, key(old.Namespace, old.App, old.Number)); err != nil {
			return fmt.Errorf("forget deploy %d: %w", old.Number, err)
		}
	}
	return nil
}

// Find is the deploy of a number, or with 0 the one before the last. It fails with ErrNotFound.
func (h History) Find(ctx context.Context, namespace, app string, number int) (Deploy, error) {
	all, err := h.List(ctx, namespace, app)
	if err != nil {
		return Deploy{}, err
	}
	if number == 0 && len(all) > 1 {
		return all[1], nil
	}
	for _, d := range all {
		if d.Number == number {
			return d, nil
		}
	}
	return Deploy{}, ErrNotFound
}
