package jobs

import (
	"context"
	"fmt"

	"github.com/hashicorp/nomad/api"
)

// ended tells of an allocation that runs no more.
func ended(status string) bool {
	return status != api.AllocClientStatusPending && status != api.AllocClientStatusRunning
}

// Restart has Nomad replace the workers of a job that run: each finishes its calls while another one starts. It returns how many.
func Restart(ctx context.Context, nomad *api.Client, namespace, id string) (int, error) {
	read := (&api.QueryOptions{Namespace: namespace}).WithContext(ctx)
	stubs, _, err := nomad.Jobs().Allocations(id, false, read)
	if err != nil {
		return 0, fmt.Errorf("list allocations of job %s: %w", id, err)
	}
	restarted := 0
	for _, stub := range stubs {
		if stub.DesiredStatus != api.AllocDesiredStatusRun || ended(stub.ClientStatus) {
			continue
		}
		if _, err := nomad.Allocations().Stop(&api.Allocation{ID: stub.ID, Namespace: namespace}, read); err != nil {
			return restarted, fmt.Errorf("replace allocation %s: %w", stub.ID, err)
		}
		restarted++
	}
	return restarted, nil
}
