package driver

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// succeed makes this process the one plugin of the data directory. An earlier one that still runs is ended: its agent was killed and
// the next one does not know of it, so that both would tend the same tasks. It holds nothing that a signal would let it keep.
func succeed(ctx context.Context, dataDir string) error {
	process, err := handoff.FindProcess(dataDir)
	switch {
	case errors.Is(err, handoff.ErrGone), errors.Is(err, os.ErrNotExist):
		return handoff.WritePID(dataDir, os.Getpid())
	case err != nil:
		return fmt.Errorf("find the plugin before this one: %w", err)
	}
	defer process.Close()
	if process.PID == os.Getpid() {
		return nil
	}
	if err := process.Signal(unix.SIGKILL); err != nil && !errors.Is(err, handoff.ErrGone) {
		return fmt.Errorf("end the plugin before this one: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	if err := process.Wait(ctx); err != nil {
		return fmt.Errorf("end the plugin before this one: %w", err)
	}
	return handoff.WritePID(dataDir, os.Getpid())
}
