package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// warmPoll is how often a worker that is started ahead is looked at.
const warmPoll = 100 * time.Millisecond

// placeWait is how long such a worker may wait for room on a node.
const placeWait = 10 * time.Second

// ErrNoRoom says that no node has room for a worker.
var ErrNoRoom = errors.New("no node has room")

// Warm runs one worker of a function's job as a job of its own, which takes no calls and ends when it is frozen. It fails with a
// *wire.Error when the worker does not start, with ErrNoRoom beside it when it has no room to. Nothing of it stays but the snapshot.
func Warm(ctx context.Context, nomad *api.Client, job *api.Job, f spec.Function) (err error) {
	group := job.TaskGroups[0]
	job.ID, job.Type, job.TaskGroups = new(f.JobID()+spec.WarmSuffix), new(api.JobTypeBatch), []*api.TaskGroup{group}
	job.Meta = map[string]string{MetaWarm: f.JobID()}
	group.Count, group.Scaling, group.Update = new(1), nil, nil
	group.RestartPolicy = &api.RestartPolicy{Attempts: new(0), Mode: new("fail")}
	group.ReschedulePolicy = &api.ReschedulePolicy{Attempts: new(0), Unlimited: new(false)}
	write := (&api.WriteOptions{Namespace: f.Namespace}).WithContext(context.WithoutCancel(ctx))
	if err := purgeWarm(ctx, nomad, f.Namespace, *job.ID); err != nil { // what it left must not answer for it
		return err
	}
	if err := Register(ctx, nomad, job); err != nil {
		return err
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
			return errors.Join(ErrNoRoom, &wire.Error{Kind: wire.KindStart, Message: "no node has room for one more worker: deploy without a warm start, or make room"})
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

// Warmed is a job that starts a worker ahead, which one that began it may have left behind.
type Warmed struct{ Namespace, App, Job string }

// ListWarmed lists the jobs of all namespaces that start workers ahead.
func ListWarmed(ctx context.Context, nomad *api.Client) ([]Warmed, error) {
	read := &api.QueryOptions{Namespace: "*", Filter: `ID matches "[.]warm$"`, Params: map[string]string{"meta": "true"}}
	stubs, _, err := nomad.Jobs().List(read.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("list jobs of workers started ahead: %w", err)
	}
	var all []Warmed
	for _, stub := range stubs {
		if app, _, ok := strings.Cut(stub.Meta[MetaWarm], "."); ok {
			all = append(all, Warmed{stub.Namespace, app, stub.ID})
		}
	}
	return all, nil
}

// PurgeWarmed ends such a job and forgets it.
func PurgeWarmed(ctx context.Context, nomad *api.Client, w Warmed) error {
	return purgeWarm(ctx, nomad, w.Namespace, w.Job)
}

func purgeWarm(ctx context.Context, nomad *api.Client, namespace, id string) error {
	there, err := find(ctx, nomad, namespace, id)
	if err != nil || there == nil {
		return err
	}
	if there.Meta[MetaWarm] == "" {
		return &ForeignError{namespace, id}
	}
	if _, _, err := nomad.Jobs().Deregister(id, true, (&api.WriteOptions{Namespace: namespace}).WithContext(ctx)); err != nil {
		return fmt.Errorf("purge job %s: %w", id, err)
	}
	return nil
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
