package gateway

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
)

// workerView is a worker, and what it uses where that was asked for and its node said so.
type workerView struct {
	queue.Heartbeat

	Usage *jobs.Usage `json:"usage,omitempty"`
}

// How many nodes are asked at once what their workers use, and how long all may take: what is missing then is left out.
const (
	usageAtOnce = 16
	usageWait   = 2 * time.Second
)

// usage asks what workers use.
func (x *execs) usage(ctx context.Context, beats []queue.Heartbeat) []workerView {
	ctx, cancel := context.WithTimeout(ctx, usageWait)
	defer cancel()
	views := make([]workerView, len(beats))
	var asking errgroup.Group
	asking.SetLimit(usageAtOnce)
	for i, beat := range beats {
		views[i].Heartbeat = beat
		asking.Go(func() error {
			if used, err := x.jobs.Usage(ctx, beat.Namespace, beat.Alloc); err == nil {
				views[i].Usage = &used
			}
			return nil // what one does not say the others do
		})
	}
	_ = asking.Wait() // none fails
	return views
}
