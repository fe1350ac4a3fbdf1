package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// stopWorkers ends the supervisors under the driver's data directory: an agent that stops leaves its tasks running, as it
// should on a real node, but `freshet up` leaves nothing behind. Each gets the grace to finish its calls.
func stopWorkers(ctx context.Context, driverDir string, grace time.Duration, log zerolog.Logger) error {
	files, err := filepath.Glob(filepath.Join(driverDir, "tasks", "*", handoff.PIDFile))
	if err != nil {
		return fmt.Errorf("find workers: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	var group errgroup.Group
	for _, file := range files {
		group.Go(func() error { return stopWorker(ctx, file, log) })
	}
	return group.Wait()
}

func stopWorker(ctx context.Context, file string, log zerolog.Logger) error {
	process, err := handoff.FindProcess(filepath.Dir(file))
	if errors.Is(err, handoff.ErrGone) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer process.Close()
	if err := process.Signal(unix.SIGTERM); err != nil {
		return nil // it ended meanwhile
	}
	if err := process.Wait(ctx); err == nil {
		return nil
	}
	log.Warn().Int("pid", process.PID).Msg("worker did not finish its calls in time; killing it, its calls stay queued")
	if err := process.Signal(unix.SIGKILL); err != nil {
		return nil // it ended meanwhile
	}
	return process.Wait(context.WithoutCancel(ctx))
}
