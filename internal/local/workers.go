//go:build linux

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// stopWorkers ends the supervisors under the driver's data directory: an agent that stops leaves its tasks running, as it
// should on a real node, but `freshet up` leaves nothing behind. Each gets the grace to finish its calls.
func stopWorkers(ctx context.Context, driverDir string, grace time.Duration, log zerolog.Logger) error {
	var files []string
	for _, kind := range []string{"tasks", "ahead"} { // those made ahead end by themselves when their plugin does, and are awaited
		found, err := filepath.Glob(filepath.Join(driverDir, kind, "*", handoff.PIDFile))
		if err != nil {
			return fmt.Errorf("find workers: %w", err)
		}
		files = append(files, found...)
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

// stopPlugins ends driver plugins that their agent left behind: an agent that was killed does, and so does one that stops while
// it attaches to a plugin of its predecessor (seen with Nomad 1.6.3).
func stopPlugins(plugin string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return fmt.Errorf("find plugins: %w", err)
	}
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it ended
		}
		program, _, _ := bytes.Cut(cmdline, []byte{0})
		if string(program) != plugin {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue // the pattern matches numbers only
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) { // it holds nothing that a signal would let it keep
			return fmt.Errorf("stop plugin %d: %w", pid, err)
		}
	}
	return nil
}
