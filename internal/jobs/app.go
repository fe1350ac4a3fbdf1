package jobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Job is a job with the name of one of an app's functions, as Nomad has it now.
type Job struct {
	// Spec is the function's, with its defaults set; Err says what is wrong with the job.
	Spec spec.Function
	Err  error
	// ID is the job's.
	ID string
	// Foreign says that it is not the function's job: somebody else made it.
	Foreign bool
	// Stopped says that it runs no more; Nomad forgets it in time.
	Stopped bool

	raw *api.Job
}

// App reads the jobs with names of an app's functions. A Watcher may be behind; this is what there is.
func App(ctx context.Context, nomad *api.Client, namespace, app string) ([]Job, error) {
	read := (&api.QueryOptions{Namespace: namespace, Prefix: app + "."}).WithContext(ctx)
	stubs, _, err := nomad.Jobs().List(read)
	if err != nil {
		return nil, fmt.Errorf("list jobs of app %s: %w", app, err)
	}
	var all []Job
	for _, stub := range stubs {
		name := strings.TrimPrefix(stub.ID, app+".")
		if strings.Contains(name, ".") {
			continue // no function has such a name
		}
		raw, err := find(ctx, nomad, namespace, stub.ID)
		if err != nil {
			return nil, err
		}
		if raw == nil {
			continue // it was purged meanwhile
		}
		f, err := Function(raw)
		all = append(all, Job{
			Spec: f, Err: err, ID: stub.ID, Stopped: value(raw.Stop), raw: raw,
			Foreign: raw.Meta[MetaApp] != app || raw.Meta[MetaFunction] != name,
		})
	}
	return all, nil
}

// Restore makes a job again what it was when App read it.
func Restore(ctx context.Context, nomad *api.Client, job Job) error {
	return Register(ctx, nomad, job.raw)
}

// find reads a job; nil when there is none.
func find(ctx context.Context, nomad *api.Client, namespace, id string) (*api.Job, error) {
	job, _, err := nomad.Jobs().Info(id, (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	var response api.UnexpectedResponseError
	if errors.As(err, &response) && response.StatusCode() == http.StatusNotFound {
		return nil, nil //nolint:nilnil // no job is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", id, err)
	}
	return job, nil
}
