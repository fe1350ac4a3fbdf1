package jobs

import (
	"context"
	"fmt"

	"github.com/hashicorp/nomad/api"
)

// Register creates or replaces a job. A job that runs keeps its number of workers.
func Register(ctx context.Context, nomad *api.Client, job *api.Job) error {
	write := (&api.WriteOptions{Namespace: value(job.Namespace)}).WithContext(ctx)
	if _, _, err := nomad.Jobs().RegisterOpts(job, &api.RegisterOptions{PreserveCounts: true}, write); err != nil {
		return fmt.Errorf("register job %s: %w", value(job.ID), err)
	}
	return nil
}

// Stop stops a job; Nomad collects it later.
func Stop(ctx context.Context, nomad *api.Client, namespace, id string) error {
	write := (&api.WriteOptions{Namespace: namespace}).WithContext(ctx)
	if _, _, err := nomad.Jobs().Deregister(id, false, write); err != nil {
		return fmt.Errorf("stop job %s: %w", id, err)
	}
	return nil
}
