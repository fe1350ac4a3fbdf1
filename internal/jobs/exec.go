package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/oklog/ulid/v2"

	"github.com/freshet-dev/freshet/sdk/python"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// MetaSandbox marks the job of a sandbox that somebody works in, and names the function's job that it is like.
const MetaSandbox = "freshet.sandbox"

// Exec is a command that runs in a worker beside its guest.
type Exec struct {
	// Alloc is the worker's allocation, whole.
	Alloc, Namespace string
	Command          []string
	// TTY runs it in a terminal, of the size that Sizes brings, for as long as that is open.
	TTY   bool
	Sizes <-chan api.TerminalSize
	// Stdin must end, with an error or not, when RunExec has returned: it may be being read then.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// RunExec runs a command and returns its exit code. When the context ends, the command is killed.
func RunExec(ctx context.Context, nomad *api.Client, e Exec) (int, error) {
	read := (&api.QueryOptions{Namespace: e.Namespace}).WithContext(ctx)
	alloc, _, err := nomad.Allocations().Info(e.Alloc, read)
	if err != nil {
		return 0, fmt.Errorf("find worker %s: %w", e.Alloc, err)
	}
	task, err := taskOf(alloc)
	if err != nil {
		return 0, err
	}
	code, err := nomad.Allocations().Exec(ctx, alloc, task, e.TTY, e.Command, e.Stdin, e.Stdout, e.Stderr, e.Sizes, read)
	switch {
	case err == nil:
		return code, nil
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	}
	return 0, &wire.Error{Kind: wire.KindInput, Message: "the command did not run: " + reason(err)}
}

// reason is what the driver said, without the layers that passed it on.
func reason(err error) string {
	text := err.Error()
	if _, inner, ok := strings.Cut(text, "desc = "); ok {
		text = inner
	}
	return strings.TrimSpace(text)
}

// taskOf is the allocation's task that our driver runs.
func taskOf(alloc *api.Allocation) (string, error) {
	if alloc.Job != nil {
		if group := alloc.Job.LookupTaskGroup(alloc.TaskGroup); group != nil {
			for _, task := range group.Tasks {
				if task.Driver == Driver {
					return task.Name, nil
				}
			}
		}
	}
	return "", fmt.Errorf("find the task of worker %s: none has driver %q", alloc.ID, Driver)
}

// waiting is the first process of such a sandbox: it gives the first command a minute to come, and ends with the last one.
const waiting = `n=0; while :; do set -- /proc/[0-9]*; if [ $# -gt 1 ]; then n=60; elif [ $n -ge 60 ]; then exit 0; fi; n=$((n+2)); sleep 2; done`

const waitingPython = `
import os, time
until = time.monotonic() + 60
while time.monotonic() < until:
    time.sleep(2)
    if sum(name.isdigit() for name in os.listdir("/proc")) > 1:
        until = time.monotonic() + 4
`

// Sandbox runs a sandbox like those of a function's workers, of the function's job: its image, mounts, environment, network and limits,
// without its handler and what that loads. It calls use with its allocation, and ends it when that returns. It fails with a
// *wire.Error when the sandbox does not start. Should this process die, the sandbox ends by itself when nobody works in it.
func Sandbox(ctx context.Context, nomad *api.Client, job *api.Job, f spec.Function, use func(alloc string) error) (err error) {
	if f.Image == "" {
		return &wire.Error{Kind: wire.KindInput, Message: "function " + f.JobID() + " has no image: its root holds nothing but its program, so there is no shell to open"}
	}
	id := f.JobID() + ".shell-" + strings.ToLower(ulid.Make().String())
	asSandbox(job, id, f)
	write := (&api.WriteOptions{Namespace: f.Namespace}).WithContext(context.WithoutCancel(ctx))
	if _, _, err := nomad.Jobs().Register(job, write); err != nil {
		return fmt.Errorf("register job %s: %w", id, err)
	}
	defer func() {
		_, _, stop := nomad.Jobs().Deregister(id, true, write)
		err = errors.Join(err, stop)
	}()
	alloc, err := awaitRunning(ctx, nomad, f, id)
	if err != nil {
		return err
	}
	err = use(alloc)
	if state, _, gone := nomad.Allocations().Info(alloc, (&api.QueryOptions{Namespace: f.Namespace}).WithContext(context.WithoutCancel(ctx))); err != nil && gone == nil {
		if state.ClientStatus == api.AllocClientStatusFailed {
			return &wire.Error{Kind: wire.KindStart, Message: "the sandbox does not start: " + lastWords(state.Stub())}
		}
	}
	return err
}

// asSandbox changes a function's job into that of a sandbox.
func asSandbox(job *api.Job, id string, f spec.Function) {
	group := job.TaskGroups[0]
	job.ID, job.Type, job.TaskGroups = new(id), new(api.JobTypeBatch), []*api.TaskGroup{group}
	job.Meta = map[string]string{MetaSandbox: f.JobID()}
	group.Count, group.Scaling, group.Update = new(1), nil, nil
	group.RestartPolicy = &api.RestartPolicy{Attempts: new(0), Mode: new("fail")}
	group.ReschedulePolicy = &api.ReschedulePolicy{Attempts: new(0), Unlimited: new(false)}
	task := group.Tasks[0]
	task.KillTimeout = new(time.Second)
	for _, name := range []string{"handler", "snapshot", "web", "code", "ports"} {
		delete(task.Config, name)
	}
	task.Config["entrypoint"] = []string{"/bin/sh", "-c", waiting}
	if f.Handler != nil && f.Handler.Type == spec.HandlerPython { // its image may have no shell
		task.Config["entrypoint"] = []string{cmp.Or(f.Command, python.Interpreter), "-c", waitingPython}
	}
	delete(task.Config, "command")
	delete(task.Config, "args")
	if f.NetworkMode == "" && !f.Network.Egress { // what a handler has by default; a task would have a network
		task.Config["network_mode"] = spec.NetworkNone
	}
}

// awaitRunning waits for the job's allocation to run.
func awaitRunning(ctx context.Context, nomad *api.Client, f spec.Function, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, f.ImagePullTimeout.Std()+placeWait)
	defer cancel()
	read := (&api.QueryOptions{Namespace: f.Namespace}).WithContext(ctx)
	for began := time.Now(); ; {
		allocs, _, err := nomad.Jobs().Allocations(id, false, read)
		if err != nil {
			return "", fmt.Errorf("look at job %s: %w", id, err)
		}
		if len(allocs) == 0 && time.Since(began) > placeWait {
			return "", &wire.Error{Kind: wire.KindStart, Message: "no node has room for one more sandbox"}
		}
		for _, alloc := range allocs {
			switch alloc.ClientStatus {
			case api.AllocClientStatusRunning:
				return alloc.ID, nil
			case api.AllocClientStatusComplete, api.AllocClientStatusFailed, api.AllocClientStatusLost:
				return "", &wire.Error{Kind: wire.KindStart, Message: "the sandbox does not start: " + lastWords(alloc)}
			}
		}
		select {
		case <-time.After(warmPoll):
		case <-ctx.Done():
			return "", fmt.Errorf("start a sandbox of %s: %w", f.JobID(), context.Cause(ctx))
		}
	}
}
