// Command freshet-worker is the supervisor of one worker. The driver plugin starts one for each allocation, with the path of its
// task file.
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

func main() {
	do, args := run, os.Args[1:]
	if len(args) == 2 && args[0] == supervisor.PushArg {
		do, args = push, args[1:]
	}
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: freshet-worker [push] TASK.json   (the freshet driver starts it)")
		os.Exit(2)
	}
	debug.SetMemoryLimit(memoryTarget)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := do(ctx, args[0]); err != nil {
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

// run runs the worker; how it ended is in the exit file, for the driver that may be another one by then.
func run(ctx context.Context, path string) error {
	task, err := handoff.ReadTask(path)
	if err != nil {
		return errors.Join(err, handoff.Exit{Code: 1, Reason: err.Error()}.Write(filepath.Dir(path)))
	}
	// The plugin writes it too, unless it dies in between: whoever starts the task again must find this process.
	if err := handoff.WritePID(task.StateDir, os.Getpid()); err != nil {
		return err
	}
	log := zerolog.New(os.Stderr).Level(zerolog.InfoLevel).With().Timestamp().
		Str("app", task.Identity.App).Str("function", task.Identity.Function).Str("alloc", task.Identity.Alloc).Logger()
	exit := supervisor.Run(ctx, task, log)
	if err := exit.Write(task.StateDir); err != nil {
		return err
	}
	if exit.Code != 0 {
		return errors.New(exit.Reason)
	}
	return nil
}
