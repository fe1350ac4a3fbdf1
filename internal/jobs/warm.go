package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// warmPoll is how often a worker that is started ahead is looked at.
const warmPoll = 100 * time.Millisecond

// placeWait is how long such a worker may wait for room on a node.
const placeWait = 10 * time.Second

// Warm runs one worker of a function's job as a job of its own, which takes no calls and ends when it is frozen. It fails with a
// *wire.Error when the worker does not start, or has no room to. Nothing of it stays but the snapshot.
func Warm(ctx context.Context, nomad *api.Client, job *api.Job, f spec.Function) (err error) {
	group := job.TaskGroups[0]
	job.ID, job.Type, job.Meta, job.TaskGroups = new(f.JobID()+spec.WarmSuffix), new(api.JobTypeBatch), nil, []*api.TaskGroup{group}
	group.Count, group.Scaling, group.Update = new(1), nil, nil
	group.RestartPolicy = &api.RestartPolicy{Attempts: new(0), Mode: new("fail")}
	group.ReschedulePolicy = &api.ReschedulePolicy{Attempts: new(0), Unlimited: new(false)}
	write := (&api.WriteOptions{Namespace: f.Namespace}).WithContext(context.WithoutCancel(ctx))
	if _, _, err := nomad.Jobs().Register(job, write); err != nil {
		return fmt.Errorf("register job %s: %w", *job.ID, err)
	}
	defer func() {
		_, _, stop := nomad.Jobs().Deregister(*job.ID, true, write)
		err = errors.Join(err, stop)
	}()
	ctx, cancel := context.WithTimeout(ctx, f.StartupTimeout.Std()+f.ImagePullTimeout.Std()+placeWait)
	defer cancel()
	read := (&api.QueryOptions{Namespace: f.Namespace}).WithContext(ctx)
	for began := time.Now(); ; {
		allocs, _, err := nomad.Jobs().Allocations(*job.ID, false, read)
		if err != nil {
			return fmt.Errorf("look at job %s: %w", *job.ID, err)
		}
		if len(allocs) == 0 && time.Since(began) > placeWait {
			return &wire.Error{Kind: wire.KindStart, Message: "no node has room for one more worker: deploy without a warm start, or make room"}
		}
		for _, alloc := range allocs {
			switch alloc.ClientStatus {
			case api.AllocClientStatusComplete:
				return nil
			case api.AllocClientStatusFailed, api.AllocClientStatusLost:
				return &wire.Error{Kind: wire.KindStart, Message: lastWords(alloc)}
			}
		}
		select {
		case <-time.After(warmPoll):
		case <-ctx.Done():
			return fmt.Errorf("start a worker of %s: %w", f.JobID(), ctx.Err())
		}
	}
}

// lastWords is why a worker ended, as Nomad heard it.
func lastWords(alloc *api.AllocationListStub) string {
	for _, state := range alloc.TaskStates {
		for i := len(state.Events) - 1; i >= 0; i-- {
			if event := state.Events[i]; event.Type == api.TaskDriverMessage || event.Type == api.TaskDriverFailure {
				return event.DisplayMessage
			}
		}
	}
	return "the worker ended without a word; its node's log may say more"
}
