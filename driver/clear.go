package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Clear removes from the node what a driver with this configuration left on it and no task uses: control groups, network namespaces,
// mounts. It is for nodes that a driver leaves for good; one that comes back clears up by itself. What DataDir holds stays. Tasks that
// still run are an error.
func Clear(ctx context.Context, config Config, log zerolog.Logger) error {
	config, err := config.withDefaults()
	if err != nil {
		return err
	}
	l, err := openLender(ctx, config, log)
	if err != nil {
		return err
	}
	err = l.sweep(ctx)
	if live, listed := l.units(ctx); listed == nil && len(live) > 0 {
		err = errors.Join(err, fmt.Errorf("task %s still runs", live[0]))
	}
	if err == nil {
		err = l.images.Collect(ctx) // unmounts their roots
	}
	if err = errors.Join(err, l.close(), unmountShared(config)); err == nil {
		err = l.groups.Close(ctx)
	}
	if err != nil {
		return fmt.Errorf("clear node: %w", err)
	}
	return nil
}

// unmountShared detaches the empty network namespace that gVisor keeps for its sandboxes.
func unmountShared(config Config) error {
	mounted, err := filepath.Glob(filepath.Join(config.DataDir, sharedDir, "*"))
	if err != nil {
		return nil //nolint:nilerr // the pattern is right
	}
	for _, path := range mounted {
		for err == nil { // sandboxes that start at the same time mount it once each
			err = unix.Unmount(path, unix.MNT_DETACH)
		}
		if !errors.Is(err, unix.EINVAL) { // EINVAL: nothing is mounted there
			return fmt.Errorf("unmount %s: %w", path, err)
		}
		err = nil
	}
	return nil
}
