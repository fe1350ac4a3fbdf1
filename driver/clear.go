package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/cgroup"
	"github.com/freshet-dev/freshet/driver/image"
)

// Clear removes from the node what a driver with this configuration left on it and no task uses: control groups, network namespaces,
// mounts. It is for nodes that a driver leaves for good; one that comes back clears up by itself. What DataDir holds stays. Tasks that
// still run are an error.
func Clear(ctx context.Context, config Config, log zerolog.Logger) error {
	config, err := config.withDefaults()
	if err != nil {
		return err
	}
	s := &starter{ctx: ctx, config: config, log: log}
	pool, err := config.pool()
	if err != nil {
		return err
	}
	s.networks = &networks{config: pool, log: log}
	if s.groups, err = cgroup.Open(cgroup.Config{Parent: config.CgroupParent}); err != nil {
		return err
	}
	images, err := config.imageStore()
	if err != nil {
		return err
	}
	if s.images, err = image.OpenStore(images, log); err != nil {
		return err
	}
	defer s.images.Close()
	if err := s.networks.resume(ctx); err != nil {
		return err
	}
	err = s.sweep(ctx)
	if live, listed := s.units(ctx); listed == nil && len(live) > 0 {
		err = errors.Join(err, fmt.Errorf("task %s still runs", filepath.Base(live[0])))
	}
	if err = errors.Join(err, s.networks.close()); err != nil {
		return fmt.Errorf("clear node: %w", err)
	}
	if err := s.groups.Close(ctx); err != nil {
		return fmt.Errorf("clear node: %w", err)
	}
	return nil
}
