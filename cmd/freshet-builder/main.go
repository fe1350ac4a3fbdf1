// Command freshet-builder builds the image of one task. The driver plugin starts one for each allocation with a build block, with
// the path of its task file.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/builder"
	"github.com/freshet-dev/freshet/internal/handoff"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: freshet-builder TASK.json   (the freshet driver starts it)")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run builds; how it ended is in the exit file, for the driver that may be another one by then.
func run(ctx context.Context, path string) error {
	task, err := handoff.ReadTask(path)
	if err != nil {
		return errors.Join(err, handoff.Exit{Code: 1, Reason: err.Error()}.Write(filepath.Dir(path)))
	}
	// The plugin writes it too, unless it dies in between: whoever starts the task again must find this process.
	if err := handoff.WritePID(task.StateDir, os.Getpid()); err != nil {
		return err
	}
	log := zerolog.New(os.Stderr).Level(zerolog.InfoLevel).With().Timestamp().Str("alloc", task.Identity.Alloc).Logger()
	exit := builder.Run(ctx, task, log)
	if err := exit.Write(task.StateDir); err != nil {
		return err
	}
	if exit.Code != 0 {
		return errors.New(exit.Reason)
	}
	return nil
}
