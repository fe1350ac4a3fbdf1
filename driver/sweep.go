package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// sweep gives back what belongs to no unit: what a plugin that was killed left half done, and, after a reboot, everything but the
// directories by which Nomad is told that its tasks ended.
func (l *lender) sweep(ctx context.Context) error {
	live, err := l.units(ctx)
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(live))
	for _, id := range live {
		known[id] = true
	}
	groups, err := l.groups.List()
	if err != nil {
		return err
	}
	for _, group := range groups {
		id := strings.TrimSuffix(strings.TrimSuffix(group, ".guest"), ".supervisor")
		if !known[id] {
			err = errors.Join(err, l.dissolve(ctx, group))
		}
	}
	err = errors.Join(err, l.images.Sweep(live))
	if pool := l.networks.opened(); pool != nil {
		err = errors.Join(err, pool.Sweep(live))
	}
	if err != nil {
		return fmt.Errorf("clear up after an earlier plugin: %w", err)
	}
	return nil
}

// units are the ids of those whose supervisors run. It ends supervisors made ahead that nobody adopted: their plugin is gone.
func (l *lender) units(ctx context.Context) ([]string, error) {
	var live []string
	adopted := make(map[string]bool)
	for _, dir := range l.list(tasksDir) {
		if target, err := os.Readlink(dir); err == nil {
			adopted[target] = true
			dir = target
		}
		if running(dir) {
			live = append(live, filepath.Base(dir))
		}
	}
	for _, dir := range l.list(aheadDir) {
		if adopted[dir] {
			continue
		}
		if err := l.giveBack(ctx, dir); err != nil {
			return nil, err
		}
	}
	return live, nil
}

// sweepNetworks gives back the network namespaces of units that are gone, and puts the rules back where somebody removed them.
func (l *lender) sweepNetworks(context.Context) error {
	pool := l.networks.opened()
	if pool == nil {
		return nil
	}
	l.lending.Lock()
	defer l.lending.Unlock()
	var there []string
	for _, dir := range append(l.list(tasksDir), l.list(aheadDir)...) {
		there = append(there, filepath.Base(dir))
	}
	return pool.Sweep(there)
}

func (l *lender) list(kind string) []string {
	dirs, err := filepath.Glob(filepath.Join(l.config.DataDir, kind, "*"))
	if err != nil {
		return nil // the pattern is right
	}
	return dirs
}

// running tells whether the supervisor of a state directory runs.
func running(dir string) bool {
	process, err := handoff.FindProcess(dir)
	if err != nil {
		return false
	}
	process.Close()
	return true
}

// clear removes what an earlier start of a task left, its supervisor's own directory too where the task's is a link to it.
func (l *lender) clear(ctx context.Context, dir string) error {
	target, err := os.Readlink(dir)
	switch {
	case err == nil:
		if err := l.giveBack(ctx, target); err != nil {
			return err
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear task directory: %w", err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return l.giveBack(ctx, dir)
}
