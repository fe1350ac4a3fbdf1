// Command freshet-worker is the supervisor of one task. The driver plugin starts one for each allocation, with the path of its
// task file, or ahead of need, with a directory in which it prepares itself and waits for a task.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/supervisor"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// memoryTarget keeps the supervisor small: beyond it the garbage collector works harder. Calls in flight may need more.
const memoryTarget = 24 << 20

// garbage is how much may be left to collect, in percent of what is in use: calls pass through, and little of them stays.
const garbage = 200

// socketFD is the descriptor of the socket to the plugin, for a supervisor made ahead.
const socketFD = 3

func main() {
	debug.SetMemoryLimit(memoryTarget)
	debug.SetGCPercent(garbage)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 2:
		err = run(ctx, os.Args[1])
	case len(os.Args) == 3 && os.Args[1] == "--ahead":
		err = wait(ctx, os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == supervisor.PushArg:
		err = push(ctx, os.Args[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: freshet-worker TASK.json | --ahead DIRECTORY | push TASK.json   (the freshet driver starts it)")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// push pushes the task's snapshot for its worker, which goes on meanwhile.
func push(ctx context.Context, path string) error {
	task, err := handoff.ReadTask(path)
	if err != nil {
		return err
	}
	return supervisor.Push(ctx, task)
}

// run runs the task; how it ended is in the exit file, for the driver that may be another one by then.
func run(ctx context.Context, path string) error {
	task, err := handoff.ReadTask(path)
	if err != nil {
		return errors.Join(err, handoff.Exit{Code: 1, Reason: err.Error()}.Write(filepath.Dir(path)))
	}
	// The plugin writes it too, unless it dies in between: whoever starts the task again must find this process.
	if err := handoff.WritePID(task.StateDir, os.Getpid()); err != nil {
		return err
	}
	return serve(ctx, task, nil)
}

func serve(ctx context.Context, task handoff.Task, ahead *supervisor.Ahead) error {
	exit := supervisor.Run(ctx, task, ahead, newLogger(task))
	if err := exit.Write(task.StateDir); err != nil {
		return err
	}
	if exit.Code != 0 {
		return errors.New(exit.Reason)
	}
	return nil
}

// wait prepares what can be made before there is a task, and runs the one that comes.
func wait(ctx context.Context, dir string) error {
	template, err := handoff.ReadTemplate(dir)
	if err != nil {
		return err
	}
	if err := handoff.WritePID(dir, os.Getpid()); err != nil {
		return err
	}
	socket := os.NewFile(socketFD, "plugin")
	ahead, err := supervisor.Prepare(ctx, template, newLogger(template))
	if err != nil {
		return errors.Join(err, handoff.Prepared{Error: err.Error()}.Tell(socket))
	}
	if err := (handoff.Prepared{Standby: ahead.Standby()}).Tell(socket); err != nil {
		return errors.Join(err, ahead.Discard())
	}
	task, err := await(ctx, dir, ahead, socket)
	if err != nil {
		return errors.Join(err, ahead.Discard())
	}
	return serve(ctx, task, ahead)
}

// await waits for a task. It gives up when it is asked to end, and when the sandbox died: that is of no use to anybody.
func await(ctx context.Context, dir string, ahead *supervisor.Ahead, socket *os.File) (handoff.Task, error) {
	waiting, stop := context.WithCancel(ctx)
	defer ahead.Unwatch()
	defer stop()
	giveUp := func() { _ = socket.Close() } // which ends the waiting below
	if err := ahead.Watch(waiting, giveUp); err != nil {
		return handoff.Task{}, err
	}
	defer context.AfterFunc(ctx, giveUp)()
	return handoff.AwaitTask(dir, socket)
}

func newLogger(task handoff.Task) zerolog.Logger {
	return zerolog.New(os.Stderr).Level(zerolog.InfoLevel).With().Timestamp().
		Str("app", task.Identity.App).Str("function", task.Identity.Function).Str("alloc", task.Identity.Alloc).Logger()
}
