package jobs

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// ForeignError says that a job was not touched because somebody else made it: a deploy would have replaced it.
type ForeignError struct{ Namespace, Job string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("job %s in namespace %s is not freshet's: rename the function, or remove the job with nomad job stop -purge -namespace %s %s",
		e.Job, e.Namespace, e.Namespace, e.Job)
}

// registerTries bounds how often a job is registered that others change at the same time; the autoscaler does with each count.
const registerTries = 20

// Register creates or replaces a job. A job that runs keeps its number of workers. It fails with a *ForeignError, and changes nothing,
// when a job of that name belongs to another function or to none.
func Register(ctx context.Context, nomad *api.Client, job *api.Job) error {
	id, namespace := value(job.ID), value(job.Namespace)
	write := (&api.WriteOptions{Namespace: namespace}).WithContext(ctx)
	for try := 1; ; try++ {
		there, err := find(ctx, nomad, namespace, id)
		if err != nil {
			return err
		}
		options := &api.RegisterOptions{PreserveCounts: true, EnforceIndex: true} // index 0: it must be new
		if there != nil {
			if owner(there) != owner(job) {
				return &ForeignError{value(there.Namespace), id}
			}
			options.ModifyIndex = value(there.JobModifyIndex)
		}
		if _, _, err = nomad.Jobs().RegisterOpts(job, options, write); err == nil {
			return nil
		}
		if try == registerTries || !strings.Contains(err.Error(), api.RegisterEnforceIndexErrPrefix) {
			return fmt.Errorf("register job %s: %w", id, err)
		}
	}
}

// owner is whose job it is: nobody's of freshet when all is empty.
func owner(job *api.Job) [3]string {
	return [3]string{job.Meta[MetaApp], job.Meta[MetaFunction], job.Meta[MetaWarm]}
}

// Stop stops a job; Nomad collects it later. It fails with a *ForeignError when the job is no function's.
func Stop(ctx context.Context, nomad *api.Client, namespace, id string) error {
	there, err := find(ctx, nomad, namespace, id)
	if err != nil || there == nil {
		return err
	}
	if there.Meta[MetaApp] == "" {
		return &ForeignError{namespace, id}
	}
	write := (&api.WriteOptions{Namespace: namespace}).WithContext(ctx)
	if _, _, err := nomad.Jobs().Deregister(id, false, write); err != nil {
		return fmt.Errorf("stop job %s: %w", id, err)
	}
	return nil
}
