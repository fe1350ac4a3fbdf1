package storm

import (
	"context"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/jobspecs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const app = "storm"

// functions are the app's, by name: work and count write their diary, thawed is frozen after its start.
var functions = []string{"work", "thawed", "count"}

// deploy registers the functions' jobs and waits until both gateways know them.
func (w *world) deploy() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, name := range functions {
		job, err := jobspecs.Render(w.function(name))
		if err != nil {
			return err
		}
		if err := jobs.Register(ctx, w.nomad, job); err != nil {
			return err
		}
		for i := range w.gateways {
			err := await(ctx, name+" is known", func(ctx context.Context) error {
				_, err := get(ctx, fmt.Sprintf("%s/v1/functions/%s/%s", gateway(i), app, name))
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) function(name string) spec.Function {
	f := spec.Function{
		App: app, Name: name,
		Config: spec.Config{
			Code: w.path("guest"), Handler: &spec.Handler{Type: spec.HandlerGo, Entry: name}, Concurrency: 8,
			Timeout: spec.Duration(20 * time.Second), Retries: spec.Retries{Max: 2, Initial: spec.Duration(100 * time.Millisecond), Backoff: 2},
		},
		Resources: spec.Resources{CPU: 100, MemoryMB: 128},
		Scaling:   spec.Scaling{Max: 4, ScaledownWindow: spec.Duration(3 * time.Second)},
		Drain:     spec.Duration(10 * time.Second),
	}
	if name == "thawed" {
		f.Snapshot.Enabled = true
		f.Network.Egress = true // so that its workers have networks
		return f
	}
	f.Mounts = []spec.Mount{{Source: w.path("diary"), Target: "/diary"}}
	return f
}
